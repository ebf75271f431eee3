"""The run store: one directory per run, named by the hash of its configuration.

<store>/runs/<run_id>/config.yaml       what was asked for
                      provenance.json   what it ran on, for each start
                      status.json       how far it got
                      curve.jsonl       every step: a pure function of config.yaml
                      throughput.jsonl  its speed, for each logging interval
                      checkpoint/       see sweep.train.checkpoint
                      claim/            who trains it: see sweep.store.claim
                      traceback.txt     the error, if it failed
                      evaluations.json  losses on other text: see sweep.use.evaluate
                      wandb.json        what of it is in wandb: see sweep.tracking.process
<store>/launches/                       see sweep.launch.local
<store>/submissions/                    see sweep.launch.slurm
<store>/corpora/<fingerprint>/          see sweep.data.corpus
<store>/bench.json                      speeds measured by `isosweep bench`
<store>/compiled/                       torch.compile's cache, for the next run of the same shape
<store>/sweeps/<name>/                  tables, fits and figures
"""

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import yaml

from sweep import __version__
from sweep.errors import InputError
from sweep.files import write_atomically, write_json
from sweep.plan import measured
from sweep.plan.cost import shape_of
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.store.claim import Claim
from sweep.store.states import DONE, FAILED, FINAL_STATES, WAITING

RESULTS = {"val_loss", "val_loss_se", "elapsed_s", "device"}  # in the status of every finished run

ROW_BYTES, SMALL_FILES = 200, 100_000  # of the curve; of everything beside curve and tensors


def disk_bytes(run: RunConfig) -> float:
    """The most bytes that `run` has on disk: two checkpoints and a third being written, the curve, and small files."""
    checkpoint = 3 * 4 * run.N + SMALL_FILES  # weights and AdamW's two moments, in fp32
    return 3 * checkpoint + ROW_BYTES * run.steps + SMALL_FILES


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.curve = path / "curve.jsonl"
        self.throughput = path / "throughput.jsonl"
        self.traceback = path / "traceback.txt"
        self.checkpoints = path / "checkpoint"

    def create(self, run: RunConfig) -> None:
        """Make the directory for `run`, or check that it is `run`'s already. Raises InputError if it holds another
        configuration, or cannot be written."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"store: cannot write {self.path} ({error.strerror}); choose another store=…") from error
        config = self.path / "config.yaml"
        if not config.exists():
            write_atomically(config, yaml.safe_dump(run.to_dict(), sort_keys=False))
        elif (found := self.config().run_id) != run.run_id:
            problem = f"{config} describes run {found}, not {run.run_id}: it was changed after the run began"
            raise InputError(f"{problem}; restore it, or delete {self.path}")

    def require_space(self, run: RunConfig) -> None:
        """Raises InputError if the file system has no room for what `run` writes."""
        free, needed = shutil.disk_usage(self.path).free, disk_bytes(run)
        if free < needed:
            problem = f"{self.path} needs about {needed / 1e6:.0f} MB for checkpoints and the curve"
            raise InputError(f"{problem}, and {free / 1e6:.0f} MB are free; make room, or choose another store=…")

    @property
    def claim(self) -> Claim:
        """The run's claim: a new object each time, to take it or to ask about it."""
        return Claim(self.path / "claim")

    @contextmanager
    def own(self) -> Iterator[Claim | None]:
        """Own the run for as long as the context lasts; None if another living process does."""
        claim = self.claim
        if not claim.take():
            yield None
            return
        try:
            yield claim
        finally:
            claim.release()

    def config(self) -> RunConfig:
        """Raises InputError if config.yaml is missing or damaged."""
        path = self.path / "config.yaml"
        try:
            values = yaml.safe_load(path.read_text())
            if not isinstance(values, dict):
                raise InputError("not a mapping")
            return RunConfig.from_dict(values)
        except (OSError, yaml.YAMLError, InputError) as error:
            raise InputError(f"{path}: {error}; delete {self.path} and launch again") from error

    def status(self) -> dict[str, Any]:
        """The last status written, or state "waiting". Raises InputError if the file is damaged."""
        path = self.path / "status.json"
        try:
            status = json.loads(path.read_text())
        except FileNotFoundError:
            return {"state": WAITING, "step": 0}
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); delete it and launch again") from error
        needed = {"state", "step"} | (RESULTS if isinstance(status, dict) and status.get("state") == DONE else set())
        if not isinstance(status, dict) or not needed <= set(status):
            raise InputError(f"{path} is damaged (it lacks {', '.join(sorted(needed))}); delete it and launch again")
        return status

    def write_status(self, state: str, **fields: Any) -> None:
        write_json(self.path / "status.json", {"state": state, **fields, "updated": _now()})

    def add_provenance(self, **fields: Any) -> None:
        """Append the provenance of this start of the run, and `fields`."""
        path = self.path / "provenance.json"
        starts = json.loads(path.read_text())["starts"] if path.exists() else []
        write_json(path, {"starts": [*starts, provenance() | fields]})


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
        return [run for run in runs if self.run(run.run_id).status()["state"] not in FINAL_STATES]

    def statuses(self, runs: Iterable[RunConfig]) -> dict[str, dict[str, Any]]:
        """The status of each of `runs`, by run_id. A status that cannot be read counts as failed, for that reason."""
        found = {}
        for run in runs:
            try:
                found[run.run_id] = self.run(run.run_id).status()
            except InputError as error:
                found[run.run_id] = {"state": FAILED, "step": 0, "error": str(error)}
        return found

    def speed_seen(self, runs: Iterable[RunConfig], device: str, evaluation_tokens: int, threads: int = 1) -> Speed:
        """How long runs take on a device, from those of `runs` that are done, from what was measured of their shapes on this
        machine (with as many `threads`), or else from benchmarks in the store."""
        by_id = {run.run_id: run for run in runs}
        finished = [(by_id[i], status) for i, status in self.statuses(by_id.values()).items() if status["state"] == DONE]
        known = {shape_of(run): measured.read(run, threads) for run in by_id.values()} if device == "cpu" else {}
        shapes = {shape: each.rate() for shape, each in known.items() if each}
        return Speed.measured(finished, device, evaluation_tokens, read_benchmarks(self.bench), shapes)

    def require_writable(self) -> None:
        """Raises InputError if nothing can be written here."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise InputError(f"store={self.root} cannot be written ({error.strerror}); choose another store=…") from error


def read_benchmarks(path: Path) -> list[dict[str, Any]]:
    """The rows of a bench.json; none if there is no such file. Raises InputError if it is damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete it and bench again") from error


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
