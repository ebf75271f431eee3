"""Whether the exponents of several labels are one."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim

if TYPE_CHECKING:
    from sweep.compare.labels import Exponent

TELLING = 0.1  # exponents that differ by less are one


def same_exponents(exponents: Sequence["Exponent"], paper: str, level: float) -> Claim:
    """The statement of a paper that all labels have one exponent a, beside their largest difference.

    By Approach 2 if every label has it, else by Approach 3. The labels are of independent runs, so the interval of a difference
    combines both of its ends in quadrature (Zou and Donner 2008), wide enough for all pairs together (Bonferroni's).

    Args:
        exponents: of every label, with intervals of `level`.
        paper: the statement.
    """
    labels = list(dict.fromkeys(each.label for each in exponents))
    for approach in ("isoflop", "parametric"):
        found = {
            each.label: (each.a.value, each.a.interval)
            for each in exponents
            if each.approach == approach and each.a and each.a.interval
        }
        if len(found) == len(labels) > 1:
            break
    else:
        return Claim(paper=paper, here="not every label has a law with an interval", verdict=UNCLEAR)
    from scipy.special import ndtri

    pairs = list(combinations(found, 2))
    wider = ndtri(1 - (1 - level) / 2 / len(pairs)) / ndtri((1 + level) / 2)
    differences = []
    for one, other in pairs:
        (a, (low, high)), (b, (b_low, b_high)) = found[one], found[other]
        below, above = ((x**2 + y**2) ** 0.5 * wider for x, y in ((a - low, b_high - b), (high - a, b - b_low)))
        differences.append((a - b - below, a - b, a - b + above, f"{one} less {other}"))
    apart = [each for each in differences if each[0] > 0 or each[2] < 0]
    low, value, high, name = max(apart or differences, key=lambda each: abs(each[1]))
    alike = all(-TELLING < each[0] and each[2] < TELLING for each in differences)
    verdict = HOLDS if alike else FAILS if apart else UNCLEAR
    values = ", ".join(f"{a:.3f} of {label}" for label, (a, _) in found.items())
    here = f"{values} by {approach}; {name} is {value:+z.3f} ({low:+z.3f} to {high:+z.3f})"
    here += f", for all {len(pairs)} pairs together" if len(pairs) > 1 else ""
    return Claim(paper=paper, here=here, verdict=verdict)
