"""The launchers: where the runs of a sweep can be trained, behind one interface.

`of` finds the launcher that cluster.launcher names. `queued`, `cancel` and `logs` ask all launchers, because a store may hold
the traces of several.
"""

import pkgutil
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from sweep.config import ClusterConfig
from sweep.errors import InputError
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.train.events import Event

# Given the runs to be trained and a function that says whether the launch was asked to stop: a context that lasts as long as
# the training, and yields the function that every event goes to.
Watch: TypeAlias = Callable[[Sequence[RunConfig], Callable[[], bool]], AbstractContextManager[Callable[[Event], None]]]

_registered: dict[str, "Launcher"] = {}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What all runs of a launch share."""

    name: str  # of the sweep
    store: Store
    corpus: Path  # its directory
    device: str  # "cpu" or "cuda"
    cluster: ClusterConfig
    compile: str = "auto"  # as `RuntimeConfig.compile`
    keep: int = 0  # as `EvaluationConfig.keep`
    worth_compiling: frozenset[str] = frozenset()  # run_ids of the runs that compile="auto" compiles
    speed: Speed = field(default_factory=lambda: Speed(0, {}))
    tracker: dict[str, Any] | None = None  # its fields, for a launcher whose runs are trained by another process


@dataclass(frozen=True, kw_only=True)
class Queued:
    """A run that a launcher has taken, waiting or in training: `where` it is, and the launcher's word for its `state`."""

    where: str
    state: str


class Launcher(ABC):
    """One way to train runs. A subclass registers itself by its `name`, which cluster.launcher chooses."""

    name: ClassVar[str]
    waits: ClassVar[bool] = False  # whether `submit` returns only when the runs have ended

    def __init_subclass__(cls) -> None:
        _registered[cls.name] = cls()

    @abstractmethod
    def submit(self, runs: Sequence[RunConfig], launch: Launch, watch: Watch) -> str:
        """Train `runs`, or have them trained; one line about that for the user. A launcher that waits enters `watch`, even if
        there are no runs. Raises InputError if the runs cannot be trained this way."""

    @abstractmethod
    def queued(self, store: Store) -> dict[str, Queued]:
        """The runs of `store` that this launcher has taken and that are not known to have ended, by run_id. Raises InputError
        if there was a launch and its state cannot be found out."""

    @abstractmethod
    def cancel(self, store: Store, run_ids: Collection[str]) -> str:
        """Stop whatever holds one of these runs, after a checkpoint; one line about it, or "" if nothing does."""

    def logs(self, store: Store, run_id: str) -> list[Path]:
        """What the processes that had the run printed, oldest first."""
        return []

    def current_job(self) -> tuple[str, int] | None:
        """The batch job that this process belongs to, and how often it was restarted; None if it is none of this launcher's."""
        return None

    def alive(self, job: str) -> bool | None:
        """Whether `job`, as `current_job` names it, is running; None if that is unknown, or it is another launcher's."""
        return None


@cache
def registered() -> dict[str, Launcher]:
    """All launchers by name; importing a launcher's module registers it."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"sweep.launch.{module.name}")
    return _registered


def fresh_name() -> str:
    """A name for a launch's own directory: the time, and a random part."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def of(name: str) -> Launcher:
    """The launcher that cluster.launcher calls `name`. Raises InputError if there is none."""
    if name not in registered():
        raise InputError(f"cluster.launcher={name} is none of {', '.join(sorted(registered()))}")
    return registered()[name]


def queued(store: Store) -> dict[str, Queued]:
    """The runs of `store` that any launcher has taken, by run_id. Raises InputError as `Launcher.queued` does."""
    return {run_id: run for launcher in registered().values() for run_id, run in launcher.queued(store).items()}


def not_taken(runs: Iterable[RunConfig], store: Store) -> list[RunConfig]:
    """Those of `runs` that no launcher has taken and no process is training."""
    taken = queued(store)
    return [run for run in runs if run.run_id not in taken and not store.run(run.run_id).claim.held()]


def cancel(store: Store, run_ids: Collection[str]) -> str:
    """Stop whatever holds one of these runs; one line about what was stopped."""
    told = [launcher.cancel(store, run_ids) for launcher in registered().values()]
    return "; ".join(filter(None, told)) or "nothing was queued or running"


def logs(store: Store, run_id: str) -> list[Path]:
    """What the processes that had the run printed."""
    return [path for launcher in registered().values() for path in launcher.logs(store, run_id)]
