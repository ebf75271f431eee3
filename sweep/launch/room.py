"""Waiting for room on a full disk, so that it costs a sweep time and no runs."""

import sys
import time
from pathlib import Path
from shutil import disk_usage

from sweep.plan.run import RunConfig
from sweep.store.runs import disk_bytes

RETRY_S, TELL_S = 10.0, 600.0


class Room:
    """Whether the disk of the store at `root` has room for another run, which keeps `keep` checkpoints."""

    def __init__(self, root: Path, keep: int = 0) -> None:
        self.root, self.keep = root, keep
        self.full = False
        self.look_again_at, self.told_at = 0.0, float("-inf")

    def there_is(self, run: RunConfig) -> bool:
        """Whether `run` may begin. As far as the system says: a quota shows only when it is met."""
        if not self.full:
            return True
        if time.monotonic() < self.look_again_at:
            return False
        self.look_again_at = time.monotonic() + RETRY_S
        return disk_usage(self.root).free >= disk_bytes(run, self.keep)

    def was_full(self, reason: str) -> None:
        """A run has stopped for lack of room, which is said now and then."""
        now = time.monotonic()
        self.full, self.look_again_at = True, now + RETRY_S
        if now - self.told_at > TELL_S:
            self.told_at = now
            print(
                f"isosweep: the disk of store={self.root} is full ({reason}). Training pauses and goes on when there is room; "
                "Ctrl-C ends it, and the same command resumes it",
                file=sys.stderr,
                flush=True,
            )

    def was_enough(self) -> None:
        """A run has written something."""
        self.full = False
