"""Every processor decides alike: statuses do not depend on the last bits of the losses, nor on which instructions are used."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, Intervals, LawError, Noise, RunTable, Simulator, Surface, fit_isoflop, fit_parametric
from sweep.fit.approaches.profiles import TooFewProfiles
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.laws import L_N, L_NS

ROOT = Path(__file__).resolve().parents[3]
SURFACE = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BUDGETS = np.geomspace(1e18, 1e20, 5).tolist()
GRID = Simulator(surface=SURFACE).isoflop(BUDGETS, sizes=7)
NOISY = Simulator(surface=SURFACE, noise=Noise(run=0.005)).isoflop(BUDGETS, sizes=7)
N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 3e10, 6)))


def table(loss: Any, **columns: Any) -> RunTable:
    names = np.array([f"run-{i}" for i in range(len(N))])
    return RunTable(
        **{"run_id": names, "N": N, "D": D, "C": 6 * N * D, "budget": np.full(len(N), np.nan), "loss": loss} | columns
    )


def perturbed(runs: RunTable, rng: np.random.Generator) -> RunTable:
    """The table with every N, D, C and loss off by a rounding error."""
    off = {name: getattr(runs, name) * (1 + 1e-15 * rng.standard_normal(len(runs))) for name in ("N", "D", "C", "loss")}
    return replace(runs, **off)


def status(fit: Callable[[], Any]) -> str:
    try:
        return fit().status
    except TooFewProfiles as error:
        return " ".join([error.status, *(profile.status for profile in error.profiles)])
    except LawError as error:
        return error.status


def surface(runs: RunTable) -> str:
    return status(lambda: fit_parametric(runs, intervals=NO_INTERVALS))


def profiles(runs: RunTable) -> str:
    return status(lambda: fit_isoflop(runs, surface=SURFACE, intervals=NO_INTERVALS))


def twice(runs: RunTable) -> RunTable:
    """Budgets of which the largest is twice the smallest, to rounding."""
    parts = [runs.where(runs.budget == BUDGETS[0])] * 3
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("N", "D", "loss")}
    factor = np.repeat([1.0, 2**0.5, 2.0], len(parts[0]))
    C = BUDGETS[0] * factor
    names = np.array([f"run-{i}" for i in range(len(C))])
    return RunTable(
        run_id=names, N=columns["N"] * factor**0.5, D=columns["D"] * factor**0.5, C=C, loss=columns["loss"], budget=C
    )


TIED = GRID.loss.copy()
TIED[GRID.budget == BUDGETS[2]] = [2.20, 2.22, 2.20, 2.24, 2.32, 2.44, 2.6]  # the smallest size ties with the third
CASES: dict[str, tuple[Callable[[RunTable], str], RunTable, str]] = {
    "a surface": (surface, table(SURFACE.predict(N, D)), "converged"),
    "a noisy surface": (surface, NOISY, "converged"),
    "without a term of D": (surface, table(1.69 + 406.4 / N**0.34), "unidentified"),
    "without a term of N": (surface, table(1.69 + 410.7 / D**0.28), "unidentified"),
    "without E": (surface, table(20 / N**0.2 + 60 / D**0.25), "bound"),
    "constant losses": (surface, table(np.full(len(N), 3.0)), "unidentified"),
    "two horizons": (surface, table(SURFACE.predict(N, D), D=np.where(D < 1e9, 1e9, 1e10)), "too_few_runs"),
    "one ratio": (surface, table(SURFACE.predict(N, 20 * N), D=20 * N, C=120 * N**2), "collinear"),
    "valleys": (profiles, GRID, "converged"),
    "flat valleys": (profiles, replace(GRID, loss=np.full(35, 3.0)), "too_few_profiles" + 5 * " concave"),
    "budgets a factor of two apart": (profiles, twice(GRID), "converged"),
    "minima at one size": (
        profiles,
        replace(GRID, N=np.tile(GRID.N[:7], 5), D=GRID.C / 6 / np.tile(GRID.N[:7], 5), loss=np.tile(GRID.loss[:7], 5)),
        "too_few_profiles" + 5 * " converged",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_last_bits_decide_nothing(case: str) -> None:
    decide, runs, expected = CASES[case]
    rng = np.random.default_rng(0)
    ways = 200 if decide is profiles or case.startswith("without a term") else 40  # the others take the suite too long
    found = {decide(runs)} | {decide(perturbed(runs, rng)) for _ in range(ways)}
    assert found == {expected}


def test_a_tie_for_the_lowest_loss_is_bracketed() -> None:
    runs, rng = replace(GRID, loss=TIED), np.random.default_rng(0)
    found = [fit_isoflop(perturbed(runs, rng), surface=SURFACE, intervals=NO_INTERVALS).profiles[2].status for _ in range(50)]
    assert set(found) == {"converged"}


@pytest.mark.parametrize("law", ["size and data", "size and steps", "scale"])
def test_a_term_of_kaplans_laws_that_is_not_there_is_refused_whatever_the_last_bits(law: str) -> None:
    fits: dict[str, Callable[..., Any]] = {
        "size and data": lambda off: fit_size_data_law(N, D, L_N.predict(N) * off, intervals=NO_INTERVALS),
        "size and steps": lambda off: fit_size_steps_law(N, D, L_NS.predict(N, np.inf) * off, intervals=NO_INTERVALS),
        "scale": lambda off: fit_scale_law(N, 3 * off, intervals=Intervals(20)),
    }
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert status(lambda: fits[law](1 + 1e-15 * rng.standard_normal(len(N)))) == "unidentified"


def test_other_instructions_decide_alike() -> None:
    """NumPy and OpenBLAS as they compute on a processor with AVX2, and on one with neither."""
    code = "import sys; sys.path.insert(0, 'tests/sweep/fit'); from test_margins import CASES; "
    code += "print([decide(runs) for decide, runs, _ in CASES.values()])"
    newer = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
    for features, kernel in (("", "Haswell"), (newer, "Haswell"), (f"{newer} AVX2 FMA3 X86_V3", "Nehalem")):
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": features, "OPENBLAS_CORETYPE": kernel}
        command = [sys.executable, "-W", "ignore", "-c", code]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        assert shown.strip() == str([expected for *_, expected in CASES.values()])
