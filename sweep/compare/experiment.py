"""What an experiment has measured, and what follows from it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

HOLDS, FAILS, UNCLEAR = "holds", "does not hold here", "cannot be told"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper beside what came out here.

    Attributes:
        paper: what the paper found, with its number and figure.
        here: what these runs say, with an interval.
        verdict: `HOLDS`, `FAILS`, or `UNCLEAR` where the noise does not allow either.
    """

    paper: str
    here: str
    verdict: str

    def line(self) -> str:
        """The claim as it is printed."""
        return f"{self.verdict}: {self.paper}\n  here: {self.here}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The finished runs of a sweep.

    Attributes:
        runs: a row for each run: run_id, cell (runs of one cell share N and D as planned), label (what was varied, without the
            seed: "schedule.cycle=1.5"), seed, budget, N, N_non_embedding, D, C, loss, train_loss, batch_tokens, steps, d_model,
            …, and a column for each varied field, by its name.
        curves: run_id, tokens, loss: smoothed training curves.
        evaluations: run_id, step, tokens, loss: each held-out loss along a run, and what else was measured there.
        labels: all that were planned, the baseline first; empty if that is not known.
        along: what `isosweep evaluate` has measured along the runs; see `sweep.store.collect.collect_along`. None if nothing.
        tasks: the scores of the tasks of evaluation.tasks; see `sweep.store.collect.collect_tasks`. None if there are none.
    """

    runs: "pd.DataFrame"
    curves: "pd.DataFrame"
    evaluations: "pd.DataFrame"
    labels: tuple[str, ...] = ()
    along: "pd.DataFrame | None" = None
    tasks: "pd.DataFrame | None" = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an experiment of one kind found; made by the function `analyse(measured: Measured)` of its module.

    Attributes:
        claims: what it says of the paper's statements.
        text: what is printed, claims aside.
        values: the numbers, as plain JSON.
        draw: the figure of the experiment, drawn into an empty one; None if it has none of its own.
    """

    claims: tuple[Claim, ...]
    text: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    draw: Callable[["Figure"], None] | None = None
