"""The launcher of this machine: a pool of worker processes, which lives as long as the command `isosweep launch`.

<store>/launches/<time>-<random>/runs.json   the runs of a launch that is going on
                                 claim/      its process: see sweep.store.claim
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from sweep.errors import InputError
from sweep.files import write_json
from sweep.launch.launchers import Launch, Launcher, Queued, Watch, fresh_name
from sweep.launch.pool import Pool, pool_size
from sweep.launch.signals import StopFlag
from sweep.plan.cost import flops
from sweep.plan.device import require_device, warn_of_narrow_heads
from sweep.plan.estimate import duration
from sweep.plan.measured import compiler
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.store.claim import Claim, Owner


class LocalLauncher(Launcher):
    """Trains runs in a pool of processes on this machine."""

    name, waits = "local", True

    def submit(self, runs: Sequence[RunConfig], launch: Launch, watch: Watch) -> str:
        require_device(launch.device)
        warn_of_narrow_heads(runs, launch.device)
        if launch.device == "cpu" and launch.compile == "auto" and shutil.which(compiler()) is None:
            slow = "a step is torch's own, several times slower; install g++, or set CXX"
            print(f"isosweep: there is no {compiler()}: {slow}", file=sys.stderr)
        pool = Pool(launch=launch, workers=pool_size(launch.cluster, launch.device))
        steps_before = {run.run_id: launch.store.run(run.run_id).status()["step"] for run in runs}
        start, stopping = time.monotonic(), StopFlag()
        with watch(runs, stopping) as report:
            if not runs:
                return ""
            with stopping, _recorded(runs, launch.store):
                outcomes = pool.run(runs, report, stopping)
            wall = time.monotonic() - start
        if launch.device == "cuda":  # where several runs share a GPU, time in steps says little
            steps = {run: launch.store.run(run.run_id).status()["step"] - steps_before[run.run_id] for run in runs}
            rate = sum(flops(run) * taken / run.steps for run, taken in steps.items()) / wall
            return f"trained in {duration(wall)}, {rate:.3g} FLOP/s over all, in {launch.store.root}"
        share = sum(outcome.training_s for outcome in outcomes) / (wall * min(pool.workers, len(runs)))
        return f"trained in {duration(wall)}, {share:.0%} of it in training steps, in {launch.store.root}"

    def queued(self, store: Store) -> dict[str, Queued]:
        return {
            run_id: Queued(where=f"process {owner.pid} on {owner.machine}", state="launched")
            for owner, run_ids in _living(store)
            for run_id in run_ids
        }

    def cancel(self, store: Store, run_ids: Collection[str]) -> str:
        """Stop launches as Ctrl-C does. A process that trains one run, as `isosweep train` starts, is stopped itself."""
        launches = [(owner, launched) for owner, launched in _living(store) if launched & set(run_ids)]
        here = {owner.pid for owner, _ in launches if owner.is_here()}
        elsewhere = {owner.machine for owner, _ in launches if not owner.is_here()}
        for run_id in set(run_ids).difference(*(launched for _, launched in launches)):
            owner = store.run(run_id).claim.owner()
            if owner is not None and owner.is_here() and owner.alive() and not owner.job:
                here.add(owner.pid)
        for pid in here:
            os.kill(pid, signal.SIGTERM)  # not SIGINT: a second one would not wait for checkpoints
        told = [f"stopped {len(here)} processes here"] if here else []
        return "; ".join(told + [f"a launch goes on at {machine}: cancel it there" for machine in sorted(elsewhere)])


@contextmanager
def _recorded(runs: Sequence[RunConfig], store: Store) -> Iterator[None]:
    """Keep a record of this launch in the store while it goes on, and remove the records of launches that have died."""
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
    try:
        yield
    finally:
        claim.release()
        shutil.rmtree(directory, ignore_errors=True)


def _living(store: Store) -> Iterator[tuple[Owner, set[str]]]:
    """The process and the runs of every launch that goes on."""
    for directory in sorted(store.launches.glob("*")):
        claim = Claim(directory / "claim")
        try:
            owner = claim.owner()
            if owner is not None and claim.held():
                yield owner, set(json.loads((directory / "runs.json").read_text()))
        except (OSError, ValueError):
            continue  # it has just begun, or just ended
