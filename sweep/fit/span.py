"""Whether a variable varies enough for its exponent to show."""

import numpy as np

from sweep.errors import LawError
from sweep.words import counted

MIN_SPAN = 1.5  # the largest value over the smallest
MIN_STEP = 1.05  # between two levels: D is rounded to whole steps, and jitter is no level


def require_span(name: str, values: np.ndarray, levels: int = 3) -> None:
    """Raises LawError "narrow_range" unless the positive `values`, shape (runs,), span a factor of 1.5 and have `levels` levels
    that are 5 % or more apart.

    With an exponent of 0.3 and a term of a third of the loss, a factor of 1.5 moves the loss by 4 %, but one of 1.2 by less
    than 2 %, no more than seeds and hyperparameters do: an exponent that is fitted there is theirs.
    """
    ordered = np.sort(values)
    found = [ordered[0]]
    for value in ordered:
        found += [value] if value >= MIN_STEP * found[-1] else []
    if ordered[-1] < MIN_SPAN * ordered[0]:
        extent = f"from {ordered[0]:.6g} to {ordered[-1]:.6g}, by {100 * (ordered[-1] / ordered[0] - 1):.2g} %"
        what = f"{name} hardly varies: {extent}"
        remedy = f"add runs until the largest {name} is at least {MIN_SPAN:g} times the smallest"
        raise LawError("narrow_range", f"{what}, which shows no exponent of {name}; {remedy}")
    if len(found) < levels:
        what = f"{name} has {counted(len(found), 'level')} that are 5 % or more apart, and its exponent needs {levels}"
        raise LawError("narrow_range", f"{what}; add runs at other {name}")
