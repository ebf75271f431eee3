"""Accuracy during training (Touvron et al. 2023, Fig. 2): does it rise with tokens, and does it follow the loss?

The runs have horizons of their own, so that each point is a model at the end of its schedule. `isosweep evaluate` has scored
them on evaluation.tasks.
"""

from typing import TYPE_CHECKING

from sweep.compare.accuracy import FAILS as LAW_FAILS
from sweep.compare.accuracy import FALLS, NOISE, PREDICTS, RISES, Judged, TaskFound, judge_tasks, percent, points, with_tokens
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL
from sweep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TOKENS = "on most benchmarks accuracy rises steadily with tokens (LLaMA, Fig. 2)"
LOSS = "… and follows the loss, but for two that are unreliable (LLaMA, section 3.4)"
LAW = "accuracy is a sigmoid of the loss, which small models give (Llama 3, section 3.2.1)"
VERDICTS = {RISES: HOLDS, PREDICTS: HOLDS, FALLS: FAILS, LAW_FAILS: FAILS}


def analyse(measured: Measured) -> Outcome:
    """Whether the accuracy on each task rises with tokens at fixed N, and as the loss falls, and whether a law of it holds.

    Raises:
        InputError: if no task was scored, or the runs have answered other items.
    """
    if measured.tasks is None:
        raise InputError("the runs have no scores; isosweep evaluate scores them on evaluation.tasks")
    scores = measured.tasks
    if measured.labels:
        scores = scores[scores["label"] == measured.labels[0]]
    found = judge_tasks(scores, level=LEVEL)
    claims = [claim for each in found for claim in _claims(each, scores[scores["task"] == each.task])]
    return Outcome(
        claims=tuple(claims),
        text=tuple(each.words() for each in found),
        values={"tasks": [each.to_dict() for each in found]},
    )


def _claims(found: TaskFound, scores: "pd.DataFrame") -> list[Claim]:
    if found.verdict == NOISE:
        here = f"{found.task} is only noise: {percent(found.mean)} over all runs, chance is {found.chance:.1%}"
        return [Claim(paper=LOSS, here=here, verdict=UNCLEAR)]
    rate = with_tokens(scores, LEVEL)
    verdict = UNCLEAR if rate.interval is None or rate.contains(0) else HOLDS if rate.value > 0 else FAILS
    claims = [
        Claim(paper=TOKENS, here=f"{found.task}: {points(rate)} for each doubling of D at fixed N", verdict=verdict),
        Claim(
            paper=LOSS,
            here=f"{found.task}: {points(found.slope)} for a nat less",
            verdict=VERDICTS.get(found.verdict, UNCLEAR),
        ),
    ]
    if isinstance(found.judged, Judged):
        law = Claim(
            paper=LAW, here=f"{found.task}: {found.judged.words()}", verdict=VERDICTS.get(found.judged.verdict, UNCLEAR)
        )
        claims.append(law)
    return claims
