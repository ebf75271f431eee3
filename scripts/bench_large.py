"""How long plan, status and fit take on a large sweep: a store of finished runs of a planted law, none of them trained.

    python scripts/bench_large.py [--horizons 48] [--out results/large]

Makes 24 IsoFLOP profiles of 20 sizes, and 40 sizes at 48 horizons, in a temporary folder: 2,290 different runs, about 100 MB.
Times each command as a process of its own; and `fit` of tables of 10,000 rows of the law, at 100 budgets or 100 x 100 (N, D).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from models import flops_per_token
from sweep.commands.sweeps import plan_sweep, sweep_folder
from sweep.config import compose
from sweep.fit.surface import Surface
from sweep.plan.run import RunConfig
from sweep.store import Store, states

SURFACE = Surface(E=0.5, A=40.0, B=60.0, alpha=0.4, beta=0.35)
TABLE = 10_000  # rows
STEPS = 200  # of each run, to within a power of two of its batch


def write_run(store: Store, run: RunConfig, rng: np.random.Generator) -> None:
    """The files of a finished run whose losses follow `SURFACE`."""
    directory = store.run(run.run_id)
    directory.path.mkdir(parents=True)
    (directory.path / "config.yaml").write_text(yaml.dump(run.to_dict(), Dumper=yaml.CSafeDumper, sort_keys=False))
    tokens = np.arange(1, run.steps + 1) * run.batch_tokens
    losses = SURFACE.predict(run.N, tokens) * np.exp(rng.normal(0, 0.01, run.steps))
    final = float(SURFACE.predict(run.N, run.D) * np.exp(rng.normal(0, 0.002)))
    per_token = flops_per_token(run.model, "exact")
    rows = [
        {"step": step, "tokens": int(seen), "flops": seen * per_token, "loss": loss, "lr": 0.01, "grad_norm": 1.0}
        for step, (seen, loss) in enumerate(zip(tokens.tolist(), losses.tolist(), strict=True), start=1)
    ]
    rows.append({"step": run.steps, "tokens": run.D, "flops": run.D * per_token, "val_loss": final, "val_loss_se": 0.001})
    (directory.path / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory.path / "throughput.jsonl").write_text(json.dumps({"step": run.steps, "loss": rows[-2]["loss"]}) + "\n")
    status = {"step": run.steps, "steps": run.steps, "tokens": run.D, "val_loss": final, "val_loss_se": 0.001}
    (directory.path / "status.json").write_text(
        json.dumps({"state": states.DONE, **status, "elapsed_s": run.N * run.D / 1e10, "device": "cpu", "updated": ""})
    )


def timed(arguments: list[str]) -> dict[str, float]:
    """Seconds and megabytes of one command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sweep", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"isosweep {' '.join(arguments)} failed")
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "MB": round(usage.ru_maxrss / 1024),
    }


def write_table(path: Path, rows: int, *, budgets: bool) -> None:
    """A planted table: profiles of as many sizes as budgets, or a square of N and D."""
    side = round(rows**0.5)
    i, j = (each.ravel() / (side - 1) for each in np.mgrid[:side, :side])
    C = 1e14 * 1e4**i
    N = SURFACE.optimal(C)[0] * 10 ** (j - 0.5) if budgets else 1e4 * 1e5**i
    D = C / (6 * N) if budgets else 1e6 * 1e5**j
    loss = SURFACE.predict(N, D) * np.exp(np.random.default_rng(0).normal(0, 0.002, len(N)))
    columns = {"N": N, "D": D, "loss": loss} | ({"budget": C} if budgets else {})
    pd.DataFrame(columns).to_csv(path, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--horizons", type=int, default=48, help="of each of 40 sizes (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a folder for large.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        budgets, sizes, ratios = (
            ",".join(f"{value:.4g}" for value in np.geomspace(low, high, count))
            for low, high, count in ((1e14, 1e18, 24), (1e4, 1e9, 40), (5, 500, options.horizons))
        )
        rule = {"coefficient": 1 / STEPS, "parameters": 0, "tokens": 1, "min": 1, "max": 1e12}
        overrides = [
            "name=large", "data=synthetic", "data.max_epochs=1e9", "device=cpu", f"store={folder}", "cluster.workers=2",
            "grid=[isoflop,horizons]", f"grid.isoflop.budgets=[{budgets}]", "grid.isoflop.sizes=20", "grid.isoflop.span=30",
            f"grid.horizons.parameters=[{sizes}]", f"grid.horizons.tokens_per_parameter=[{ratios}]",
            *(f"optimizer.batch_rule.{name}={value}" for name, value in rule.items()),
        ]  # fmt: skip
        plan, _ = plan_sweep(compose(overrides), overrides=overrides)
        store, rng = Store(Path(folder)), np.random.default_rng(0)
        plan.write(sweep_folder(store, "large"))
        for planned in plan.runs:
            write_run(store, planned.run, rng)
        found = {"runs": len(plan.runs)} | {
            " ".join(words): timed([*words, f"store={folder}"])
            for words in (["status", "large"], ["plan", "large"], ["fit", "large"])
        }
        found["plan from conf/"] = timed(["plan", *overrides])
        for budgets_too, name in ((True, "budgets"), (False, "square")):
            table = Path(folder) / f"{name}.csv"
            write_table(table, TABLE, budgets=budgets_too)
            found[f"fit table={name}.csv, {TABLE:,} rows"] = timed(["fit", f"table={table}", f"out={folder}/{name}"])
    text = json.dumps(found, indent=2)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "large.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
