"""Where the runs of a sweep are, as their directories say, and how fast those that are done went."""

from collections.abc import Iterable
from typing import Any

from sweep.errors import InputError
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.store.runs import Store
from sweep.store.states import DONE, FAILED


def statuses(store: Store, runs: Iterable[RunConfig]) -> dict[str, dict[str, Any]]:
    """The status of each of `runs`, by run_id. A status that cannot be read counts as failed, for that reason."""
    found = {}
    for run in runs:
        try:
            found[run.run_id] = store.run(run.run_id).status()
        except InputError as error:
            found[run.run_id] = {"state": FAILED, "step": 0, "error": str(error)}
    return found


def speed_seen(store: Store, runs: Iterable[RunConfig], device: str, evaluation_tokens: int) -> Speed:
    """How long runs take on a device, from those of `runs` that are done, or else from benchmarks in the store."""
    runs = list(runs)
    found = statuses(store, runs)
    finished = [(run, found[run.run_id]) for run in runs if found[run.run_id]["state"] == DONE]
    return Speed.measured(finished, device, evaluation_tokens, store.benchmarks())
