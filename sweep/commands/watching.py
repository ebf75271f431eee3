"""What a launch is watched with: progress on the screen, and the mirror to wandb."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from sweep.commands import console
from sweep.plan.run import RunConfig
from sweep.store import Store

if TYPE_CHECKING:
    from sweep.launch.events import Event
    from sweep.launch.launchers import Watch
    from sweep.tracking.mirror import Tracker


def watching(
    tracker: "Tracker | None",
    store: Store,
    *,
    screen: bool = True,
    finished: Iterable[str] = (),
    stopping_timeout_s: float | None = None,
) -> "Watch":
    """Mirror the runs of a launch to `tracker`, if there is one, and show their progress.

    Args:
        tracker: where to mirror to.
        store: where the runs are.
        screen: whether to show progress.
        finished: run_ids of finished runs, which are mirrored too.
        stopping_timeout_s: seconds to wait for wandb at the end if the launch was asked to stop; as usual if None.
    """
    from sweep.follow.progress import SweepProgress
    from sweep.tracking.mirror import Mirror

    @contextmanager
    def watch(runs: Sequence[RunConfig], stopping: Callable[[], bool]) -> "Iterator[Callable[[Event], None]]":
        with Mirror(tracker, store, _warn_of_wandb) as mirror:
            mirror.send(finished)
            with SweepProgress(runs, console()) if screen and runs else nullcontext(lambda event: None) as progress:
                yield mirror.beside(progress)
            if stopping_timeout_s is not None and stopping():
                mirror.timeout_s = stopping_timeout_s
        if mirror.delivered:
            print(mirror.summary())

    return watch


def _warn_of_wandb(text: str) -> None:
    print(f"isosweep: wandb: {text}; the runs go on, and isosweep wandb-sync sends what it lacks", file=sys.stderr)
