"""What a store holds and how much of the disk that takes; and deleting what nobody needs any more."""

import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from sweep.errors import InputError
from sweep.launch import launchers
from sweep.plan.written import FILE, SweepPlan
from sweep.store import RunDirectory, Store, states


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A sweep of a store, or what is left of one.

    Attributes:
        name: of the sweep.
        run_ids: its runs, as planned; None if its plan cannot be read, and `problem` says why.
        done: how many of them are done.
        run_bytes, checkpoint_bytes: of its runs on disk, and of that their checkpoints.
        own_bytes: of its tables, fits and figures.
        launched: when its plan was written, in seconds since 1970.
    """

    name: str
    run_ids: frozenset[str] | None
    done: int
    run_bytes: int
    checkpoint_bytes: int
    own_bytes: int
    launched: float
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something to delete: of a run, all of it or its checkpoints, those kept along it among them."""

    run: RunDirectory
    whole: bool
    state: str
    size: int

    @property
    def paths(self) -> list[Path]:
        return [self.run.path] if self.whole else [path for folder in folders(self.run) for path in folder.glob("*")]


def folders(run: RunDirectory) -> tuple[Path, Path]:
    """Where a run's checkpoints lie."""
    return run.checkpoints, run.kept


def size_of(path: Path) -> int:
    """Bytes that a file, or a folder with all that is in it, takes on disk; what vanishes meanwhile takes none."""
    try:
        found = path.lstat()
        inside = sum(size_of(each) for each in path.iterdir()) if S_ISDIR(found.st_mode) else 0
    except OSError:
        return 0
    return found.st_blocks * 512 + inside


def sweeps(store: Store) -> list[Listed]:
    """Every sweep that was launched into the store, by name."""
    return [_listed(path.parent, store) for path in sorted((store.root / "sweeps").glob(f"*/{FILE}"))]


def _listed(folder: Path, store: Store) -> Listed:
    run_ids, problem, done = None, "", 0
    try:
        plan = SweepPlan.read(folder)
        run_ids = frozenset(planned.run.run_id for planned in plan.runs) if plan else frozenset()
        done = (
            sum(status["state"] == states.DONE for status in store.statuses(p.run for p in plan.runs).values()) if plan else 0
        )
    except InputError as error:
        problem = str(error)
    directories = [store.run(run_id) for run_id in run_ids or ()]
    return Listed(
        name=folder.name,
        run_ids=run_ids,
        done=done,
        run_bytes=sum(size_of(directory.path) for directory in directories),
        checkpoint_bytes=sum(size_of(folder) for directory in directories for folder in folders(directory)),
        own_bytes=size_of(folder),
        launched=(folder / FILE).stat().st_mtime,
        problem=problem,
    )


def without_plan(store: Store, known: Iterable[Listed]) -> list[RunDirectory]:
    """The runs that belong to none of the sweeps `known`: dropped from a plan, or trained by themselves. Raises InputError if
    the plan of a sweep cannot be read, since its runs would be among them."""
    planned: set[str] = set()
    for sweep in known:
        if sweep.run_ids is None:
            raise InputError(f"{sweep.problem}; until then nobody knows which runs belong to no plan")
        planned |= sweep.run_ids
    there = (path for path in sorted((store.root / "runs").glob("[0-9a-f]" * 16)) if path.is_dir())
    return [store.run(path.name) for path in there if path.name not in planned]


def deletable(runs: Iterable[RunDirectory], store: Store, *, whole: bool, unfinished: bool) -> list[Found]:
    """Those of `runs`, or of their checkpoints unless `whole`, that may go: of runs that have come to their end or, if
    `unfinished`, of others too; but of none that a living process owns or a launcher has taken."""
    taken, found = launchers.queued(store), []
    for run in runs:
        state = _state(run)
        if (state in states.FINAL_STATES or unfinished) and run.path.name not in taken and not run.claim.held():
            each = Found(run=run, whole=whole, state=state, size=sum(map(size_of, (run.path,) if whole else folders(run))))
            if each.paths:
                found.append(each)
    return found


def delete(found: Collection[Found], tell: Callable[[str], None]) -> int:
    """Delete what was found, unless it has changed since; the bytes that were freed. `tell` is told of what is left alone.

    The claim is held meanwhile, so that nobody begins to train the run. Raises InputError if something cannot be deleted.
    """
    freed = 0
    for each in found:
        with each.run.own() as claim:
            if claim is None or _state(each.run) != each.state:
                tell(f"{each.run.path.name} is left alone: it is being trained")
                continue
            try:
                for path in each.paths:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError as error:
                raise InputError(
                    f"{error.filename or each.run.path} cannot be deleted ({error.strerror}); check its rights"
                ) from error
        freed += each.size
    return freed


def _state(run: RunDirectory) -> str:
    """The run's state; "damaged" if that cannot be read."""
    try:
        return run.status()["state"]
    except InputError:
        return "damaged"
