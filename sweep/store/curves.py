"""Reading what finished runs have, and smoothing their training curves."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import InputError, one_line
from sweep.files import patiently, read_json
from sweep.store.runs import RunDirectory
from sweep.store.states import DONE

OWN = "validation"  # the corpus's own held-out part among evaluated sets
EVALUATIONS = "evaluations.json"
TASKS = "tasks.json"
ALONG = "along"  # in the losses on a set: those of kept checkpoints, by step
LAST = ("val_loss", "val_loss_se")  # that the status repeats from the curve's last evaluation


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a finished run has.

    Attributes:
        status: its status.json.
        losses: of its training, shape (steps,).
        evaluations: the rows of its curve that hold a held-out loss, `val_loss`, with `step` and `tokens`.
    """

    status: dict[str, Any]
    losses: np.ndarray
    evaluations: list[dict[str, Any]]


def read_results(directory: RunDirectory) -> Results:
    """What the directory of a finished run holds.

    Raises InputError if the run is not done, if configuration, status and curve do not agree, or if one of them is damaged or
    was changed after it was written.
    """
    run, status, remedy = directory.config(), directory.status(), f"delete {directory.path} to train the run again"
    if status["state"] != DONE:
        raise InputError(f"run {run.run_id} is {status['state']}, not done; isosweep launch trains it to its horizon")
    if status["step"] != run.steps:
        raise InputError(f"{directory.path / 'status.json'} has step {status['step']} of {run.steps} as the last; {remedy}")
    try:
        content = patiently(directory.curve.read_bytes)
        rows = [json.loads(line) for line in content.splitlines()]
        trained = np.array([(row["step"], row["loss"]) for row in rows if row.get("loss") is not None], dtype=float)
        last = {name: value for row in rows if row["step"] == run.steps for name, value in row.items() if name in LAST}
    except (ValueError, OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{directory.curve} is damaged ({one_line(error)}); {remedy}") from error
    if status.get("curve_sha256", digest := hashlib.sha256(content).hexdigest()) != digest:
        raise InputError(f"{directory.curve} was changed after the run was done; {remedy}")
    if trained.shape != (run.steps, 2) or (trained[:, 0] != np.arange(1, run.steps + 1)).any():
        raise InputError(f"{directory.curve} does not hold every step of its finished run once; {remedy}")
    if not np.isfinite(trained).all():
        raise InputError(f"{directory.curve} holds a loss that is not finite; {remedy}")
    if last != {name: status[name] for name in LAST}:
        raise InputError(
            f"the last held-out loss in {directory.curve} is {last.get('val_loss')}, and status.json says "
            f"{status['val_loss']}: one was changed; {remedy}"
        )
    return Results(status=status, losses=trained[:, 1], evaluations=[row for row in rows if row.get("val_loss") is not None])


def evaluated(directory: RunDirectory) -> dict[str, Any]:
    """The losses that `isosweep evaluate` has kept for a run, by set; see `sweep.use.evaluate.evaluate`, and `sweep.use.along`
    for what is under `ALONG`. Raises InputError if the file is damaged."""
    try:
        return read_json(directory.path / EVALUATIONS, dict, "delete it and evaluate again")
    except FileNotFoundError:
        return {}


def scored(directory: RunDirectory) -> dict[str, Any]:
    """The scores that `isosweep evaluate` has kept for a run, by task; see `sweep.use.tasks.score_tasks`. Raises InputError if
    the file is damaged."""
    try:
        return read_json(directory.path / TASKS, dict, "delete it and evaluate again")
    except FileNotFoundError:
        return {}


def smooth_curve(loss: np.ndarray, sigma: float) -> np.ndarray:
    """`loss`, shape (steps,), smoothed by a Gaussian of `sigma` steps, which is cut off and renormalised at the ends."""
    if sigma <= 0:
        return loss
    from scipy.ndimage import gaussian_filter1d

    weight = gaussian_filter1d(np.ones_like(loss, dtype=float), sigma, mode="constant")
    return gaussian_filter1d(loss.astype(float), sigma, mode="constant") / weight
