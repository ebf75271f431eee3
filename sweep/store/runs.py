"""The run store: one directory per run, named by the hash of its configuration.

<store>/runs/<run_id>/config.yaml       what was asked for
                      provenance.json   what it ran on, for each start
                      status.json       how far it got
                      curve.jsonl       every step: a pure function of config.yaml
                      throughput.jsonl  its speed, for each logging interval
                      checkpoint/       see sweep.train.checkpoint
                      kept/             weights along the run, if evaluation.keep asks for them: likewise
                      claim/            who trains it: see sweep.claim
                      traceback.txt     the error, if it failed
                      evaluations.json  losses on other text: see sweep.use.evaluate
                      tasks.json        scores on multiple choice: see sweep.use.tasks
                      wandb.json        what of it is in wandb: see sweep.tracking.process
<store>/launches/                       see sweep.launch.record
<store>/submissions/                    see sweep.launch.slurm
<store>/corpora/<fingerprint>/          see sweep.data.corpus
<store>/bench.json                      speeds measured by `isosweep bench`
<store>/compiled/                       torch.compile's cache, for the next run of the same shape
<store>/sweeps/<name>/                  tables, fits and figures
"""

import errno
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from sweep import __version__
from sweep.claim import Claim, LostError
from sweep.errors import InputError, one_line
from sweep.files import read_json, write_atomically, write_json, write_sealed
from sweep.plan import measured
from sweep.plan.cost import shape_of
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.store.manifest import discard_temporaries, last_claim
from sweep.store.states import ALL_STATES, DONE, FAILED, FINAL_STATES, WAITING

OWNED = ("status.json", "curve.jsonl", "provenance.json")  # which only the owner of a run writes
NUMBER = (int, float)
RESULTS = {"val_loss": NUMBER, "val_loss_se": NUMBER, "elapsed_s": NUMBER, "device": (str,)}  # in every finished run's status

ROW_BYTES, SMALL_FILES = 200, 100_000  # of the curve; of everything beside curve and tensors


def disk_bytes(run: RunConfig, keep: int = 0) -> float:
    """The most bytes that `run` has on disk: two checkpoints and a third being written, the curve, small files, and the weights
    of all but the last of the `keep` checkpoints that evaluation.keep asks for."""
    weights = 4 * run.N  # in fp32; a checkpoint has AdamW's two moments too
    kept = max(0, min(keep, run.steps) - 1) * (weights + SMALL_FILES)
    return 3 * (3 * weights + SMALL_FILES) + kept + ROW_BYTES * run.steps + SMALL_FILES


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.curve = path / "curve.jsonl"
        self.throughput = path / "throughput.jsonl"
        self.traceback = path / "traceback.txt"
        self.checkpoints = path / "checkpoint"
        self.kept = path / "kept"

    def create(self, run: RunConfig) -> None:
        """Make the directory for `run`, or check that it is sound. Raises InputError as `config` does, or if it cannot be
        written."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"store: cannot write {self.path} ({error.strerror}); choose another store=…") from error
        config = self.path / "config.yaml"
        if not config.exists():
            write_atomically(config, yaml.safe_dump(run.to_dict(), sort_keys=False))
        self.config()

    def require_space(self, run: RunConfig, keep: int = 0) -> None:
        """Raises InputError if the file system has no room for what `run` writes; `keep` is evaluation.keep."""
        free, needed = shutil.disk_usage(self.path).free, disk_bytes(run, keep)
        if free < needed:
            problem = f"{self.path} needs about {needed / 1e6:.0f} MB for checkpoints and the curve"
            remedy = f"{free / 1e6:.0f} MB are free; make room, or choose another store=…"
            raise InputError(f"{problem}, and {remedy}") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @property
    def claim(self) -> Claim:
        """The run's claim: a new object each time, to take it or to ask about it."""
        return Claim(self.path / "claim", after=max(map(last_claim, (self.checkpoints, self.kept))))

    @contextmanager
    def own(self) -> Iterator[Claim | None]:
        """Own the run for as long as the context lasts; None if another living process does."""
        claim = self.claim
        if not claim.take():
            yield None
            return
        try:
            for name in OWNED:  # so that a former owner that wakes up cannot put any of them in place
                for left in self.path.glob(f".{name}.*.tmp"):
                    left.unlink(missing_ok=True)
            for folder in (self.checkpoints, self.kept):
                discard_temporaries(folder)
            yield claim
        finally:
            claim.release()

    def config(self) -> RunConfig:
        """What config.yaml says. Raises InputError if it is missing or damaged, or describes another run than this."""
        path = self.path / "config.yaml"
        try:
            values = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            if not isinstance(values, dict):
                raise InputError("it is not a mapping")
            run = RunConfig.from_dict(values)
            if run.run_id != self.path.name:
                raise InputError(f"it describes run {run.run_id}: it was changed after the run began")
        except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
            problem = str(error) if isinstance(error, InputError) else one_line(error)
            raise InputError(f"{path} is damaged ({problem}); restore it, or delete {self.path} and launch again") from error
        return run

    def status(self) -> dict[str, Any]:
        """The last status written, or state "waiting". Raises InputError if the file is damaged, or was changed by hand."""
        path, remedy = self.path / "status.json", "delete it and launch again"
        try:
            status = read_json(path, dict, remedy)
        except FileNotFoundError:
            return {"state": WAITING, "step": 0}
        if problem := _problem_of(status):
            raise InputError(f"{path} is damaged ({problem}); {remedy}")
        return status

    def status_or_failed(self) -> dict[str, Any]:
        """The status. One that cannot be read counts as failed, for that reason."""
        try:
            return self.status()
        except InputError as error:
            return {"state": FAILED, "step": 0, "error": str(error)}

    def write_status(self, state: str, claim: Claim, **fields: Any) -> None:
        """Raises LostError if `claim`, the run's, is not this process's any more, or the run has come to its end."""
        with suppress(InputError):  # a damaged one is replaced
            if self.status()["state"] in FINAL_STATES:
                raise LostError(f"{self.path} has come to its end")
        write_sealed(self.path / "status.json", {"state": state, **fields, "updated": _now()}, claim.check)

    def starts(self) -> list[dict[str, Any]]:
        """The provenance of each start of the run. Raises InputError if provenance.json is damaged."""
        path, remedy = self.path / "provenance.json", "delete it: only a report reads it"
        try:
            starts = read_json(path, dict, remedy).get("starts")
        except FileNotFoundError:
            return []
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise InputError(f"{path} is damaged (it has no list of starts); {remedy}")
        return starts

    def add_provenance(self, claim: Claim, **fields: Any) -> None:
        """Append the provenance of this start of the run, and `fields`. Raises InputError if the file is damaged, and LostError
        as above."""
        write_json(self.path / "provenance.json", {"starts": [*self.starts(), provenance() | fields]}, claim.check)


def _problem_of(status: dict[str, Any]) -> str:
    """What is wrong with a status; "" if nothing is."""
    if status.get("state") not in ALL_STATES:
        return f"its state is {status.get('state')!r}"
    if type(step := status.get("step")) is not int or step < 0:
        return f"its step is {step!r}"
    if status["state"] != DONE:
        return ""
    for name, kinds in RESULTS.items():
        if type(value := status.get(name)) not in kinds:
            return f"its {name} is {value!r}"
    return ""


class Store:
    """A directory of runs and corpora that sweeps share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.corpora = root / "corpora"
        self.launches = root / "launches"
        self.bench = root / "bench.json"
        self.compiled = root / "compiled"

    def run(self, run_id: str) -> RunDirectory:
        """The directory of a run. Raises InputError if `run_id` is no run_id: no path may lead out of the store."""
        if not re.fullmatch(r"[0-9a-f]{16}", run_id):
            remedy = "those are 16 hexadecimal digits, as isosweep status lists them"
            raise InputError(f"run_id={run_id!r} is no run's name; {remedy}")
        return RunDirectory(self.root / "runs" / run_id)

    def unfinished(self, runs: Iterable[RunConfig]) -> list[RunConfig]:
        """Those of `runs` that have not come to their end, in the order given."""
        found = self.statuses(runs := list(runs))
        return [run for run in runs if found[run.run_id]["state"] not in FINAL_STATES]

    def statuses(self, runs: Iterable[RunConfig]) -> dict[str, dict[str, Any]]:
        """The status of each of `runs`, by run_id, as `RunDirectory.status_or_failed` has it."""
        return {run.run_id: self.run(run.run_id).status_or_failed() for run in runs}

    def speed_seen(self, runs: Iterable[RunConfig], device: str, evaluation_tokens: int, threads: int = 1) -> Speed:
        """How long runs take on a device, from those of `runs` that are done, from what was measured of their shapes on this
        machine (with as many `threads`), or else from benchmarks in the store."""
        by_id = {run.run_id: run for run in runs}
        finished = [(by_id[i], status) for i, status in self.statuses(by_id.values()).items() if status["state"] == DONE]
        known = {shape_of(run): measured.read(run, threads) for run in by_id.values()} if device == "cpu" else {}
        shapes = {shape: each.rate() for shape, each in known.items() if each}
        return Speed.measured(finished, device, evaluation_tokens, read_benchmarks(self.bench), shapes)

    def require_writable(self) -> None:
        """Do here what training does, in a folder that is removed again. Raises InputError if the file system cannot."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.root, prefix=".probe-") as folder:
                write_atomically(Path(folder) / "file", b"twice")
                write_atomically(Path(folder) / "file", b"twice")
                one, other = Claim(Path(folder)), Claim(Path(folder))
                alone = one.take() and other.held() and not other.take()
                one.release()
        except OSError as error:
            raise InputError(f"store={self.root} cannot be written ({error.strerror}); choose another store=…") from error
        if not alone:
            raise InputError(
                f"store={self.root} lets two processes create the same file; choose a store=… on another file system"
            )


def read_benchmarks(path: Path) -> list[dict[str, Any]]:
    """The rows of a bench.json; none if there is no such file. Raises InputError if it is damaged."""
    try:
        return read_json(path, list, "delete it and bench again")
    except FileNotFoundError:
        return []


def provenance() -> dict[str, Any]:
    """Commit, versions, host, process and time of this start."""
    return {
        "time": _now(),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"isosweep": __version__} | {name: _version(name) for name in ("torch", "numpy", "tokenizers")},
        "commit": _commit(),
        "pid": os.getpid(),
    }


def _now() -> str:
    """The time in UTC, to the second, in ISO format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, marked "-dirty" if files differ from it; None outside a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():  # git would find the repository around an installed package
        return None
    git = ["git", "--no-optional-locks", "-C", str(checkout)]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
