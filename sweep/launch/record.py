"""The record of training that goes on in a process of its user, by which `cancel` finds it and tells it to stop.

<store>/launches/<time>-<random>/runs.json   its runs
                                 claim/      its process: see sweep.claim
                                 cancel      made by `cancel`: the process then ends as after Ctrl-C

The process looks for this file, and no process is ever sent a signal because of what a file says: whoever can write to the
store could name any process in it. So a launch can also be told from another machine, and out of a container.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.claim import Claim, Owner
from sweep.errors import InputError
from sweep.files import write_json
from sweep.launch.launchers import fresh_name
from sweep.launch.signals import StopFlag
from sweep.plan.run import RunConfig
from sweep.store import Store

LOOK_S = 0.5


class RecordedStop(StopFlag):
    """A StopFlag that `cancel` sets too, while the training is `recorded` with it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory: Path | None = None  # of the record
        self._told, self._looked = False, float("-inf")

    def __call__(self) -> bool:
        if self.directory is not None and not self._told and time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            with suppress(OSError):
                self._told = (self.directory / "cancel").exists()
        return self._told or super().__call__()


@contextmanager
def recorded(runs: Sequence[RunConfig], store: Store, stopping: RecordedStop) -> Iterator[None]:
    """Keep a record of training `runs` in the store while it goes on, and remove the records of processes that have died.
    Raises InputError if the store cannot be written."""
    for directory in store.launches.glob("*"):
        claim = Claim(directory / "claim")
        if claim.owner() is not None and not claim.held():
            shutil.rmtree(directory, ignore_errors=True)
    directory = store.launches / fresh_name()
    claim = Claim(directory / "claim")
    try:
        claim.take()
        write_json(directory / "runs.json", [run.run_id for run in runs])
    except OSError as error:
        raise InputError(f"store={store.root} cannot be written ({error.strerror}); make room, or choose another") from error
    stopping.directory = directory
    try:
        yield
    finally:
        claim.release()
        shutil.rmtree(directory, ignore_errors=True)


def living(store: Store) -> Iterator[tuple[Path, Owner, set[str]]]:
    """The record, the process and the runs of all training that goes on."""
    for directory in sorted(store.launches.glob("*")):
        claim = Claim(directory / "claim")
        try:
            owner = claim.owner()
            if owner is not None and claim.held():
                yield directory, owner, {str(run_id) for run_id in json.loads((directory / "runs.json").read_text())}
        except (OSError, ValueError, TypeError):
            continue  # it has just begun, or just ended


def tell(directory: Path) -> str:
    """Tell the process of a record to stop as after Ctrl-C; why it cannot be told, or ""."""
    try:
        (directory / "cancel").touch()
    except OSError as error:
        return f"{directory} cannot be written ({error.strerror}); whoever launched it can cancel it, or end it by Ctrl-C"
    return ""
