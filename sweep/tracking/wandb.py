"""Weights & Biases as a tracker, through wandb's public API. pyproject.toml has the versions that this was tested with."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from sweep.tracking import Tracker, one_line

CONFIRM_S = 10  # within which the server should show what it has accepted


def connect(tracker: Tracker) -> tuple[str, str]:
    """See `sweep.tracking`. Without a key or a server, mode "auto" is offline, and "online" raises what wandb raises."""
    for name in ("WANDB_SERVICE", "WANDB_SWEEP_ID"):  # of a program around this one that uses wandb itself
        os.environ.pop(name, None)
    import wandb

    if tracker.mode == "offline":
        return "offline", ""
    try:
        wandb.login(verify=True)  # gives up after ten seconds without an answer
    except Exception as error:
        if tracker.mode == "online":
            raise
        return "offline", f"{one_line(error)}; mirroring offline"
    return "online", ""


class Run:
    """See `sweep.tracking.Run`. wandb's step is the optimizer step, its id the run_id, and its own files are in <run>/wandb."""

    def __init__(
        self, tracker: Tracker, mode: str, directory: Path, *, run_id: str, name: str, config: dict[str, Any], tags: list[str]
    ) -> None:
        import wandb

        self.files, self.timeout_s = directory / "wandb", tracker.timeout_s / 2
        if mode == "offline":
            shutil.rmtree(self.files, ignore_errors=True)  # this offline run will hold all that an earlier one did
        self.run: Any = wandb.init(
            project=tracker.project,
            entity=tracker.entity,
            id=run_id,
            group=tracker.group,
            name=name,
            config=config,
            tags=tags,
            dir=directory,
            mode="offline" if mode == "offline" else "online",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                init_timeout=self.timeout_s,
                finish_timeout=self.timeout_s,
                finish_timeout_raises=True,
            ),
        )
        self.run.define_metric("tokens")
        self.run.define_metric("*", step_metric="tokens")
        self.next_step: int = self.run.step  # of a resumed run, one more than the last step that the server has

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step, commit=True)

    def finish(self, step: int, *, done: bool) -> None:
        """wandb's finish returns even if the server refused rows, so the server is asked for the last step it has."""
        import wandb

        self.run.finish(exit_code=0 if done else 1)
        if self.run.offline:
            wandb.teardown()  # waits until the file is whole
            return
        found, give_up = wandb.Api(timeout=max(1, round(self.timeout_s))).run(self.run.path), time.monotonic() + CONFIRM_S
        while step and (last := found.lastHistoryStep) < step:
            if time.monotonic() > give_up:
                raise RuntimeError(f"the server has {max(0, last)} of {step} steps")
            time.sleep(0.5)
        shutil.rmtree(self.files, ignore_errors=True)  # the server has it all, and an offline run would be uploaded again
