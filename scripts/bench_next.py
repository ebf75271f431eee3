"""How many FLOPs the runs that `isosweep next` chooses save over a uniform grid, for equally wide intervals of a.

Simulated sweeps: Chinchilla's surface, losses that scatter by 0.5 %, a pilot of 3 budgets x 7 sizes. Each is extended in two
ways: by uniform IsoFLOP grids at larger budgets, around the frontier that the pilot expects; and by the runs that `next_runs`
chooses after the pilot, for the same FLOPs or a share of them. The spread of the final a over --cases sweeps is what counts.
It takes 10 minutes.
"""

import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sweep.fit import NO_INTERVALS, Intervals, fit_parametric
from sweep.fit.design import next_runs
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.surface import CHINCHILLA
from sweep.tables.table import RunTable

PILOT = np.geomspace(1e18, 1e19, 3).tolist()
UNIFORM = ([3e19], [3e19, 1e20])
SHARES = (1.0, 0.5, 0.25, 0.15, 0.1, 0.06, 0.03)
NOISE = 0.005


def sweep(extend: Callable[[Simulator, RunTable], tuple[np.ndarray, np.ndarray]], cases: int) -> tuple[float, float]:
    """Standard deviation of a over `cases` pilots, each extended by its own runs and fitted again, robust (from the
    quartiles); and the FLOPs that the extension took, on average."""
    found, spent = [], []
    for seed in range(cases):
        simulator = Simulator(surface=CHINCHILLA, noise=Noise(run=NOISE), seed=seed)
        pilot = simulator.isoflop(PILOT, sizes=7)
        N, D = extend(simulator, pilot)
        runs = simulator.runs(np.concatenate([pilot.N, N]), np.concatenate([pilot.D, D]))
        found.append(fit_parametric(runs, intervals=NO_INTERVALS).a.value)
        spent.append(float(CHINCHILLA.compute.flops(N, D).sum()))
    low, high = np.quantile(found, [0.25, 0.75])
    return float((high - low) / 1.349), float(np.mean(spent))


def uniform(budgets: Sequence[float], simulator: Simulator, pilot: RunTable) -> tuple[np.ndarray, np.ndarray]:
    """The next budgets' grid, around the frontier that the pilot's fit expects."""
    expected = Simulator(surface=fit_parametric(pilot, intervals=NO_INTERVALS).surface)
    grid = expected.isoflop(budgets, sizes=7)
    return grid.N, grid.D


def designed(flops: float, reach: float, most: int, simulator: Simulator, pilot: RunTable) -> tuple[np.ndarray, np.ndarray]:
    """What `next_runs` asks for after the pilot."""
    chosen = next_runs(fit_parametric(pilot, intervals=Intervals(100)), pilot, flops=flops, reach=reach, most=most)
    return chosen.N, chosen.D


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/next"), help="folder of next.json")
    parser.add_argument("--cases", type=int, default=200, help="simulated sweeps (default: %(default)s)")
    options = parser.parse_args()
    out, cases = options.out, options.cases
    rows = []
    for budgets in UNIFORM:
        sd, flops = sweep(partial(uniform, budgets), cases)
        print(f"pilot + uniform grid at {budgets}: {flops:.3g} FLOPs, a ± {sd:.4f}", flush=True)
        rows.append({"runs": "uniform", "budgets": budgets, "flops": flops, "sd": sd})
        for share in SHARES:
            reach, most = 4 * max(budgets) / PILOT[-1], 7 * len(budgets)
            sd, spent = sweep(partial(designed, share * flops, reach, most), cases)
            print(f"  up to {most} runs chosen for {share:.0%} of that: {spent:.3g} FLOPs, a ± {sd:.4f}", flush=True)
            rows.append({"runs": "chosen", "budgets": budgets, "share": share, "flops": spent, "sd": sd})
    out.mkdir(parents=True, exist_ok=True)
    (out / "next.json").write_text(json.dumps({"noise": NOISE, "cases": cases, "pilot": PILOT, "rows": rows}, indent=1))
    print(f"wrote {out / 'next.json'}")


if __name__ == "__main__":
    main()
