"""How fast Approach 3 is, against scipy's L-BFGS-B from the same starts, in one run on one machine.

Without a table it fits 240 simulated points; with one, columns N, D (or C) and loss, or those of the digitised Chinchilla
points ("Model Size", "Training FLOP", "loss"), of which it drops the five highest losses as Besiroglu et al. 2024 do. The scipy
loop is timed on --scipy-starts of the paper's 4,500 starts, drawn evenly, and scaled up; --scipy-starts 4500 times all of them.
scipy's bootstrap is timed as one warm-started descent per resample, which is less than ours does: ours starts each resample
from the fit's minima and from the best of a hundred pairs of exponents of its own.
The default takes about 2 minutes.
"""

import json
import os
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from sweep.fit import NO_INTERVALS, Intervals, Noise, RunTable, Simulator, fit_parametric, read_frame, runs_from_frame
from sweep.fit.surface import BESIROGLU
from sweep.tables.table import COLUMNS

DELTA, STARTS, RESAMPLES, REPEATS = 1e-3, 4500, 4000, 5


def read(path: Path | None) -> RunTable:
    """The table, or 240 simulated points."""
    if path is None:
        simulator = Simulator(surface=BESIROGLU, noise=Noise(run=0.005))
        return simulator.isoflop(np.geomspace(6e18, 3e21, 9).tolist(), sizes=30, span=30).where(np.arange(240))
    frame = read_frame(path)
    if "Model Size" in frame:
        frame = frame.drop(frame["loss"].nlargest(5).index)
        return runs_from_frame(frame, COLUMNS | {"N": "Model Size", "C": "Training FLOP"}, str(path))
    return runs_from_frame(frame, COLUMNS, str(path))


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median time of a call, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def scipy_loop(runs: RunTable, starts: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Seconds that L-BFGS-B with finite differences takes from `starts`, and the lowest objective it finds."""
    log_N, log_D, log_L = np.log(runs.N), np.log(runs.D), np.log(runs.loss)

    def objective(theta: np.ndarray) -> float:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * log_N, b - beta * log_D, np.full_like(log_N, e)])
        size = np.abs(logsumexp(terms, axis=0) - log_L)
        return float((weight * np.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA))).sum())

    begin = time.perf_counter()
    best = min(minimize(objective, start, method="L-BFGS-B").fun for start in starts)
    return time.perf_counter() - begin, best


def paper_starts() -> np.ndarray:
    """The paper's 4,500 starts (a, b, e, alpha, beta), in an order in which any part of them is evenly drawn."""
    offsets, exponents = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
    grid = np.array(list(product(offsets, offsets, np.arange(-1, 1.1, 0.5), exponents, exponents)))
    return np.random.default_rng(0).permutation(grid)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="a CSV or Parquet table of runs (default: 240 simulated points)")
    parser.add_argument("--scipy-starts", type=int, default=300, help="starts that scipy is timed on (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for fit_speed.json (default: only print)")
    options = parser.parse_args()
    runs, timed = read(options.table), options.scipy_starts
    fit = fit_parametric(runs, intervals=NO_INTERVALS)
    point = seconds(lambda: fit_parametric(runs, intervals=NO_INTERVALS))
    bootstrap = seconds(lambda: fit_parametric(runs, intervals=Intervals(RESAMPLES))) - point

    taken, best = scipy_loop(runs, paper_starts()[:timed], np.ones(len(runs)))
    loop = taken * STARTS / timed
    warm = np.array([[np.log(fit.A.value), np.log(fit.B.value), np.log(fit.E.value), fit.alpha.value, fit.beta.value]])
    counts = np.random.default_rng(0).multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=50)
    loop_bootstrap = sum(scipy_loop(runs, warm, weight)[0] for weight in counts) * RESAMPLES / len(counts)

    rows = [("point estimate", point, loop), (f"{RESAMPLES:,} bootstraps", bootstrap, loop_bootstrap)]
    print(f"{len(runs)} runs, {os.cpu_count()} cores; medians of {REPEATS}; scipy timed on {timed} of {STARTS} starts")
    for name, ours, theirs in rows:
        print(f"{name:18} {ours:8.3f} s   scipy {theirs:8.1f} s   {theirs / ours:6.0f} times")
    print(f"objective {fit.objective:.12g}, scipy's best {best:.12g}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {
            name: {"seconds": ours, "scipy_seconds": theirs, "ratio": theirs / ours} for name, ours, theirs in rows
        }
        record |= {"runs": len(runs), "cores": os.cpu_count(), "scipy_starts": timed, "objective": fit.objective, "scipy": best}
        (options.out / "fit_speed.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
