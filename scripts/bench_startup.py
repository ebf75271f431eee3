"""How long a user waits: for a plan, for fits of a small table, and from the start of a launch to its first step.

Medians of --rounds, each in new processes. The launch's corpus is made by the first round, which does not count.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from statistics import median

from sweep.plan.measured import processor_name

ROOT = Path(__file__).resolve().parent.parent
ISOSWEEP = [sys.executable, "-m", "sweep"]
SMALL = "table=results/known-entropy/runs.csv"
TABLE = ["table=results/cpu-python/runs.csv", "curves=results/cpu-python/curves.parquet"]


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([*ISOSWEEP, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begin


def until_the_first_step(store: Path) -> float:
    """From the start of a launch in `store` to the first row of a curve."""
    begin = time.perf_counter()
    grid = ["grid=list", "grid.runs=[{N: 5000, D: 2e6}]", f"seed={time.time_ns() % 10**9}"]
    command = [
        *ISOSWEEP,
        "launch",
        "device=cpu",
        "data.validation_tokens=32768",
        "cluster.log_interval_s=0.01",
        *grid,
        f"store={store}",
    ]
    seen = set(store.glob("runs/*"))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launch:
        while launch.poll() is None:
            if any(path.stat().st_size for path in store.glob("runs/*/curve.jsonl") if path.parent not in seen):
                break
            time.sleep(0.01)
        found = time.perf_counter() - begin
        launch.terminate()
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/startup"), help="folder of startup.json")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory)
        until_the_first_step(store)
        measured = {
            "plan experiment=smoke": [seconds("plan", "experiment=smoke", f"store={store}") for _ in range(options.rounds)],
            "fit of 28 runs": [seconds("fit", SMALL, f"out={store}/small") for _ in range(options.rounds)],
            "fit of 57 runs and their curves": [seconds("fit", *TABLE, f"out={store}/out") for _ in range(options.rounds)],
            "from launch to the first step": [until_the_first_step(store) for _ in range(options.rounds)],
        }
    result = {"processor": processor_name(), "seconds": {name: round(median(times), 2) for name, times in measured.items()}}
    print(json.dumps(result, indent=1))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "startup.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
