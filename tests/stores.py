"""Run directories as a process would have left them."""

import json
from typing import Any

from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, states


def leave_status(directory: RunDirectory, state: str, **fields: Any) -> None:
    """Make the run's status this one, whatever it was."""
    (directory.path / "status.json").unlink(missing_ok=True)
    with directory.own() as claim:
        assert claim is not None
        directory.write_status(state, claim, **fields)


def leave_results(directory: RunDirectory, run: RunConfig, loss: float) -> None:
    """Make the directory that of `run`, finished with this held-out loss."""
    directory.create(run)
    rows: list[dict[str, float]] = []
    for step in range(1, run.steps + 1):
        tokens = step * run.batch_tokens
        rows.append({"step": step, "tokens": tokens, "flops": 6.0 * run.N * tokens, "loss": loss + 1 / step})
    last = {"val_loss": loss, "val_loss_se": 0.01}
    rows.append({"step": run.steps, "tokens": run.D, "flops": 6.0 * run.N * run.D} | last)
    directory.curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    leave_status(directory, states.DONE, step=run.steps, steps=run.steps, elapsed_s=3.0, device="cpu", **last)
