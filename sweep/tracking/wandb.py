"""Weights & Biases as a tracker, through wandb's public API. pyproject.toml names the versions that this was tested with."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from sweep.tracking import Tracker

CONFIRM_S = 10  # within which the server should show what it has accepted
MAX_TAG = 64  # characters that wandb allows


def connect(tracker: Tracker) -> tuple[str, str]:
    """The mode, "online" or "offline", and why it is offline if "auto" was asked for: no key, or no server.

    Raises what wandb raises if it is not installed, or if "online" was asked for and cannot be had.
    """
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
        return "offline", str(error)
    return "online", ""


class Run:
    """A run on wandb. Its id is the run_id, its step the optimizer step; wandb's own files go to <run>/wandb."""

    def __init__(
        self, tracker: Tracker, mode: str, directory: Path, *, name: str, config: dict[str, Any], tags: list[str]
    ) -> None:
        import wandb

        self.files, self.timeout_s = directory / "wandb", tracker.timeout_s / 2
        if mode == "offline":
            shutil.rmtree(self.files, ignore_errors=True)  # this offline run will hold all that an earlier one did
        limits: Any = {"init_timeout": self.timeout_s, "finish_timeout": self.timeout_s, "finish_timeout_raises": True}
        self.run: Any = wandb.init(
            project=tracker.project,
            entity=tracker.entity,
            group=tracker.group,
            id=directory.name,
            name=name,
            config=config,
            tags=[tag[:MAX_TAG] for tag in tags],
            dir=directory,
            mode="offline" if mode == "offline" else "online",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, **limits),
        )
        self.run.define_metric("tokens")
        self.run.define_metric("*", step_metric="tokens")
        self.next_step: int = self.run.starting_step  # one after the last that the server has; Run.step is 0 before a log

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
