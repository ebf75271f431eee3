"""The launcher of this machine: a pool of worker processes, which lives as long as the command `isosweep launch`."""

import shutil
import sys
import time
from collections.abc import Collection, Sequence

from sweep.launch.launchers import Launch, Launcher, Queued, Watch
from sweep.launch.pool import Pool, pool_size
from sweep.launch.record import RecordedStop, living, recorded, tell
from sweep.plan.cost import flops
from sweep.plan.device import require_device, warn_of_narrow_heads
from sweep.plan.estimate import duration
from sweep.plan.measured import compiler
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.words import counted


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
        steps_before = {run.run_id: launch.store.run(run.run_id).status_or_failed()["step"] for run in runs}
        start, stopping = time.monotonic(), RecordedStop()
        with watch(runs, stopping) as report:
            if not runs:
                return ""
            with stopping, recorded(runs, launch.store, stopping):
                outcomes = pool.run(runs, report, stopping)
            wall = time.monotonic() - start
        if launch.device == "cuda":  # where several runs share a GPU, time in steps says little
            steps = {run: launch.store.run(run.run_id).status_or_failed()["step"] - steps_before[run.run_id] for run in runs}
            rate = sum(flops(run) * taken / run.steps for run, taken in steps.items()) / wall
            return f"trained in {duration(wall)}, {rate:.3g} FLOP/s over all, in {launch.store.root}"
        share = sum(outcome.training_s for outcome in outcomes) / (wall * min(pool.workers, len(runs)))
        return f"trained in {duration(wall)}, {share:.0%} of it in training steps, in {launch.store.root}"

    def queued(self, store: Store) -> dict[str, Queued]:
        return {
            run_id: Queued(where=f"process {owner.pid} on {owner.machine}", state="launched")
            for _, owner, run_ids in living(store)
            for run_id in run_ids
        }

    def cancel(self, store: Store, run_ids: Collection[str]) -> str:
        """Stop launches as Ctrl-C does, on any machine, and processes that train one run, as `isosweep train` starts."""
        told, found = [], set[str]()
        for directory, owner, launched in living(store):
            found |= launched
            if launched & set(run_ids):
                process = f"process {owner.pid} on {owner.machine}"
                problem = tell(directory)
                told.append(
                    f"{process} goes on: {problem}" if problem else f"told {process} to stop: its runs write checkpoints"
                )
        held = [run_id for run_id in set(run_ids) - found if _held_outside(store, run_id)]
        if held:
            told.append(f"{counted(len(held), 'run')} in training by processes that keep no record here: end those by Ctrl-C")
        return "; ".join(told)


def _held_outside(store: Store, run_id: str) -> bool:
    """Whether a living process that belongs to no batch job trains a run."""
    claim = store.run(run_id).claim
    owner = claim.owner()
    return owner is not None and not owner.job and claim.held()
