"""Make surface.csv, 240 simulated runs, and surface.json, the optimum of Approach 3's objective on them to fifty digits.

    python tests/goldens/make_surface.py

The runs scatter about the surface of Besiroglu et al. 2024 (arXiv 2404.10102). The optimum is the root of the objective's
gradient, found by Newton's method in sixty-digit arithmetic (mpmath) from the fit in double precision; that it is the global
minimum is checked by scipy's L-BFGS-B from random starts.
"""

import csv
import json
from pathlib import Path

import mpmath
import numpy as np
from scipy.optimize import minimize

from sweep.fit import NO_INTERVALS, Noise, Simulator, fit_parametric, read_runs
from sweep.fit.surface import BESIROGLU

HERE = Path(__file__).parent
DELTA, STARTS = 1e-3, 200
Numbers = list[mpmath.mpf]


def make_table() -> None:
    """surface.csv: nine budgets of 30 sizes, of which every ninth run is left out; losses to six decimals, as tables have."""
    simulator = Simulator(surface=BESIROGLU, noise=Noise(run=0.005), seed=2404)
    runs = simulator.isoflop(np.geomspace(6e18, 3e21, 9).tolist(), sizes=30, span=30).where(np.arange(270) % 9 != 4)
    with open(HERE / "surface.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["N", "D", "loss"])
        rows.writerows((f"{N:.0f}", f"{D:.0f}", f"{loss:.6f}") for N, D, loss in zip(runs.N, runs.D, runs.loss, strict=True))


def residual(theta: Numbers, run: Numbers) -> tuple[mpmath.mpf, Numbers]:
    """log of the predicted over the measured loss, and its derivatives by (log A, log B, log E, alpha, beta)."""
    a, b, e, alpha, beta = theta
    log_N, log_D, log_L = run
    terms = [mpmath.exp(a - alpha * log_N), mpmath.exp(b - beta * log_D), mpmath.exp(e)]
    total = sum(terms)
    shares = [term / total for term in terms]
    return mpmath.log(total) - log_L, [*shares, -log_N * shares[0], -log_D * shares[1]]


def gradient(theta: Numbers, runs: list[Numbers]) -> Numbers:
    """Of the sum of Huber losses."""
    found = [mpmath.mpf(0)] * 5
    for run in runs:
        r, slope = residual(theta, run)
        g = max(-mpmath.mpf(DELTA), min(mpmath.mpf(DELTA), r))
        found = [have + g * part for have, part in zip(found, slope, strict=True)]
    return found


def huber(theta: Numbers, runs: list[Numbers]) -> mpmath.mpf:
    """The sum of Huber losses."""
    delta, total = mpmath.mpf(DELTA), mpmath.mpf(0)
    for run in runs:
        size = abs(residual(theta, run)[0])
        total += size**2 / 2 if size <= delta else delta * (size - delta / 2)
    return total


def least_of_many_starts(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> float:
    """The lowest objective that L-BFGS-B finds from random starts."""
    log_N, log_D, log_L = np.log(N), np.log(D), np.log(loss)

    def value(theta: np.ndarray) -> float:
        terms = np.stack([theta[0] - theta[3] * log_N, theta[1] - theta[4] * log_D, np.full_like(log_N, theta[2])])
        r = np.abs(np.logaddexp.reduce(terms) - log_L)
        return float(np.where(r <= DELTA, r**2 / 2, DELTA * (r - DELTA / 2)).sum())

    rng = np.random.default_rng(0)
    starts = rng.uniform([0, 0, -1, 0, 0], [25, 25, 1, 1.5, 1.5], (STARTS, 5))
    return min(float(minimize(value, start, method="L-BFGS-B").fun) for start in starts)


def main() -> None:
    make_table()
    table = read_runs(HERE / "surface.csv")
    fit = fit_parametric(table, intervals=NO_INTERVALS)
    start = [np.log(fit.A.value), np.log(fit.B.value), np.log(fit.E.value), fit.alpha.value, fit.beta.value]
    with mpmath.workdps(60):
        runs = [[mpmath.log(mpmath.mpf(value)) for value in row] for row in zip(table.N, table.D, table.loss, strict=True)]
        root = mpmath.findroot(lambda *theta: gradient(list(theta), runs), start, tol=1e-100, maxsteps=30)
        theta = list(root)
        a, b, e, alpha, beta = theta
        constants = {"E": mpmath.exp(e), "A": mpmath.exp(a), "B": mpmath.exp(b), "alpha": alpha, "beta": beta}
        constants |= {"a": beta / (alpha + beta), "objective": huber(theta, runs)}
        least = least_of_many_starts(table.N, table.D, table.loss)
        assert least > float(constants["objective"]) * (1 - 1e-12), "L-BFGS-B found a lower minimum"
        record = {"delta": DELTA, "runs": len(table)} | {name: mpmath.nstr(value, 50) for name, value in constants.items()}
    (HERE / "surface.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1), f"\nlowest of {STARTS} starts of L-BFGS-B: {least:.12g}")


if __name__ == "__main__":
    main()
