"""Loss on other text along training, and loss by position (Kaplan et al. 2020, Figs. 8, 20 and 24).

The sweep keeps checkpoints (evaluation.keep), and `isosweep evaluate` has measured them on other text (evaluation.sets). Its
baseline has several N and horizons; variants of other depths have the same N without embeddings as one of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.differences import DIFFERS, EQUAL
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, judged
from sweep.compare.positions import AtStep, growth_of_gamma, position_laws
from sweep.compare.transfer import DEPTH, END, SIZE, Effect, effects, lines, paired
from sweep.errors import InputError
from sweep.fit import Intervals
from sweep.fit.result import plain
from sweep.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {
    END: "at equal loss on the training text, other text is the same at the end of training and along it (Kaplan, Fig. 8)",
    SIZE: "… and for all N: the gap to other text grows very slowly, if at all (Kaplan, Fig. 8)",
    DEPTH: "… and for all depths (Kaplan, Fig. 24)",
}
POWER = "the loss falls as a power of the position in the context (Kaplan, Fig. 20)"
FASTER = "… and faster in larger models: gamma from 0.47 to 0.62 over a factor of 2,000 in N (Kaplan, Fig. 20)"
INTERVALS = Intervals(level=LEVEL)
WHY = {"misfit": "the loss falls in another form", "unidentified": "L_inf is open", "weak": "too noisy for an interval"}


def analyse(measured: Measured) -> Outcome:
    """What other text costs at equal loss by the phase of training, N and depth; and the laws of the loss by position.

    Raises:
        InputError: if the runs were not evaluated on other text, or no checkpoint of them was kept.
    """
    if measured.along is None or not (pairs := paired(measured.along)):
        raise InputError("the runs have no losses on other text; isosweep evaluate measures them on evaluation.sets")
    if measured.along["final"].all():
        raise InputError("no checkpoint along the runs was kept and evaluated; launch with evaluation.keep=8, then evaluate")
    found, laws = effects(pairs, measured.labels, level=LEVEL), position_laws(measured.along, INTERVALS)
    base = [each for each in laws if not measured.labels or each.label == measured.labels[0]]
    through = lines(pairs, LEVEL)
    return Outcome(
        claims=(*(_claim(of, [each for each in found if each.of == of]) for of in PAPER), _power(base), _faster(base)),
        text=tuple(each.line() for each in through),
        values=plain(
            {
                "effects": [asdict(each) | {"verdict": each.verdict} for each in found],
                "lines": [asdict(each) for each in through],
                "positions": laws,
            }
        ),
        draw=lambda figure: _draw(figure, found, base),
    )


def _claim(of: str, found: Sequence[Effect]) -> Claim:
    """Holds if all sets are the same, fails if one of them surely differs."""
    verdicts = {each.verdict for each in found}
    verdict = FAILS if DIFFERS in verdicts else HOLDS if verdicts == {EQUAL} else UNCLEAR
    here = "; ".join(f"{each.set}{_range(each)}: {each.words}" for each in found) or "the runs have one only"
    return Claim(paper=PAPER[of], here=here, verdict=verdict)


def _range(effect: Effect) -> str:
    return f" ({effect.least:g} to {effect.most:g} layers)" if effect.of == DEPTH and effect.low is not None else ""


def _power(laws: Sequence[AtStep]) -> Claim:
    """Holds if all runs have such a law, fails if the loss of most of them surely has another form."""
    ends = [each for each in laws if each.final]
    gammas = [each.gamma.value for each in ends if each.gamma is not None]
    here = f"{len(gammas)} of {counted(len(ends), 'run')} have such a law at their end"
    here += f", with gamma from {min(gammas):.2f} to {max(gammas):.2f}" if gammas else ""
    why = Counter(each.law.status for each in ends if each.gamma is None)
    here += "".join(f"; {counted(count, 'run')}: {WHY.get(status, status)}" for status, count in why.most_common())
    verdict = HOLDS if ends and len(gammas) == len(ends) else FAILS if 2 * why["misfit"] > len(ends) else UNCLEAR
    return Claim(paper=POWER, here=here, verdict=verdict)


def _faster(laws: Sequence[AtStep]) -> Claim:
    growth, reason = growth_of_gamma(laws, LEVEL)
    if growth is None:
        return Claim(paper=FASTER, here=reason, verdict=UNCLEAR)
    here = f"with a tenfold N gamma changes by {growth}"
    return Claim(paper=FASTER, here=here, verdict=judged(*(growth.interval or (np.nan, np.nan))))


def _draw(figure: "Figure", found: Sequence[Effect], laws: Sequence[AtStep]) -> None:
    """Effects beside what would matter, and gamma along training."""
    left, right = figure.subplots(1, 2)
    figure.set_size_inches(11, 4.2)
    told = [each for each in found if each.low is not None]
    for place, each in enumerate(told):
        low, high = (100 * end / each.loss for end in (each.low or 0, each.high or 0))
        left.plot([low, high], [place, place], color="C0")
        left.plot(100 * each.value / each.loss, place, "o", color="C0")
    left.axvspan(-1, 1, color="0.9", zorder=0)
    left.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(told)), [f"{each.set}: {each.of}" for each in told])
    left.set(
        xlabel="loss there at equal own loss (%)",
        ylim=(len(told) - 0.5, -0.5),
        title=f"{LEVEL:.0%} intervals, for all together",
    )
    sizes = sorted({each.N for each in laws})
    for number, N in enumerate(sizes):
        longest = max((each.D for each in laws if each.N == N), default=0)
        run = next((each.run_id for each in laws if (each.N, each.D) == (N, longest)), "")
        own = [each for each in laws if each.run_id == run and each.gamma is not None]
        gammas = np.array([(each.gamma.value, *each.gamma.interval) for each in own if each.gamma and each.gamma.interval])
        if len(gammas):
            seen, error = [each.tokens for each in own], np.abs(gammas[:, 1:] - gammas[:, :1]).T
            right.errorbar(seen, gammas[:, 0], yerr=error, fmt="o-", capsize=2, color=f"C{number}", label=f"N = {N:,}")
    right.set(xscale="log", xlabel="tokens seen", ylabel=r"$\gamma$ of $L_\infty + c\,t^{-\gamma}$", title="loss by position")
    if right.get_legend_handles_labels()[0]:
        right.legend(frameon=False)
