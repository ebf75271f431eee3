"""Whether a precision changes what a run learns: two of them from the same seeds, to the end, against the spread between seeds.

Runs that are in the store already are not trained again.
"""

import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np

from sweep.cli import main as isosweep
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.store import Store
from sweep.store.curves import read_results, smooth_curve


def trained(overrides: list[str]) -> tuple[float, np.ndarray]:
    """Held-out loss and smoothed training curve of the one run of a sweep, trained if it is not yet."""
    if isosweep(["launch", *overrides]):
        raise SystemExit("the run failed")
    (planned,) = plan_sweep(config := compose(overrides))[0].runs
    found = read_results(Store(Path(config.store)).run(planned.run.run_id))
    return found.status["val_loss"], smooth_curve(found.losses, 20)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("results/precision/precision.json"), help="file (default: %(default)s)"
    )
    parser.add_argument("--precisions", nargs=2, default=["fp32", "bf16"], help="(default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument("--parameters", type=float, default=1e5, help="N (default: %(default)g)")
    parser.add_argument("--tokens", type=float, default=2e6, help="D (default: %(default)g)")
    parser.add_argument("--seeds", type=int, default=4, help="runs in each precision (default: %(default)s)")
    options = parser.parse_args()
    run, (base, other) = f"grid.runs=[{{N: {options.parameters}, D: {options.tokens}}}]", options.precisions
    losses: dict[str, list[float]] = {}
    curves: dict[str, list[np.ndarray]] = {}
    for precision in options.precisions:
        sweep = ["grid=list", run, f"device={options.device}", f"precision={precision}"]
        found = [trained([*sweep, f"seed={seed}", f"name={precision}-{seed}"]) for seed in range(options.seeds)]
        losses[precision], curves[precision] = [loss for loss, _ in found], [curve for _, curve in found]
    differences = np.subtract(losses[other], losses[base])
    between = np.stack(curves[base]).std(axis=0, ddof=1).mean()
    apart = np.abs(np.subtract(curves[other], curves[base])).mean()
    result = {
        "val_loss": losses,
        f"{other} - {base}, mean": float(differences.mean()),
        f"{other} - {base}, standard deviation": float(differences.std(ddof=1)),
        "between seeds, standard deviation": float(np.std(losses[base], ddof=1)),
        f"smoothed curves: mean distance of {other} from {base}, same seed": float(apart),
        "smoothed curves: mean standard deviation between seeds": float(between),
    }
    print(json.dumps(result, indent=1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
