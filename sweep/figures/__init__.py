"""The figures: every one that the fits have data for.

The figures of an approach are drawn by the function in `DRAWINGS` under the approach's name.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import InputError
from sweep.figures.approaches import draw_envelope, draw_frontier, draw_isoflop, draw_parametric, draw_thirds
from sweep.figures.checks import draw_exponents, draw_extrapolation, draw_residuals, draw_sensitivity
from sweep.figures.curves import draw_collapse, draw_learning, draw_tokens_to_loss, tokens_to_loss
from sweep.figures.kaplan import NAMES, draw_kaplan
from sweep.figures.style import save, set_style
from sweep.fit import Fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By the name of the approach: the figures, by name, of its law or of why it was refused.
DRAWINGS: "dict[str, Callable[[Fits, Any], dict[str, Figure]]]" = {
    "envelope": lambda fits, law: (
        {"envelope": draw_envelope(fits, law), "thirds": draw_thirds(fits, law)} if law.fitted else {}
    ),
    # Profiles are worth drawing where they are too few for a law, too.
    "isoflop": lambda fits, law: {"isoflop": draw_isoflop(fits, law)} if law.profiles else {},
    "parametric": lambda fits, law: (
        {"parametric": draw_parametric(fits, law), "residuals": draw_residuals(fits, law)} if law.fitted else {}
    ),
}


def draw_all(fits: Fits, out: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Every figure that `fits` has data for, in each of `formats` (png, svg, pdf) under `out`; the paths written, in this
    order. Raises InputError if no law could be fitted, a format is not known, or `out` cannot be written."""
    return [path for name, figure in figures_of(fits).items() for path in save(figure, out / name, formats)]


def figures_of(fits: Fits) -> "dict[str, Figure]":
    """The same figures by name, unsaved. Raises InputError if no law could be fitted."""
    set_style()
    figures: dict[str, Figure] = {}
    for name, law in fits.laws.items():
        if name in DRAWINGS:
            figures |= DRAWINGS[name](fits, law)
    if not figures:
        reasons = "; ".join(law.reason for law in fits.refused.values())
        raise InputError(f"no law could be fitted, so there is nothing to draw: {reasons}")
    if fits.fitted:
        figures["frontier"] = draw_frontier(fits)
    if any(variant.a for variant in fits.sensitivity):
        figures["sensitivity"] = draw_sensitivity(fits)
    if any(row.a for row in fits.conventions):
        figures["conventions"] = draw_exponents(fits.conventions, fits.level)
    if fits.extrapolation.fitted:
        figures["extrapolation"] = draw_extrapolation(fits, fits.extrapolation.each)  # type: ignore[union-attr]
    if any(fits.kaplan[name].fitted for name in NAMES):
        figures["kaplan"] = draw_kaplan(fits)
    if fits.curves:
        figures["learning"] = draw_learning(fits)
        if reached := tokens_to_loss(fits.curves):
            figures["tokens_to_loss"] = draw_tokens_to_loss(fits, reached)
    if fits.collapse.fitted:
        figures["collapse"] = draw_collapse(fits, fits.collapse)  # type: ignore[arg-type]
    return figures
