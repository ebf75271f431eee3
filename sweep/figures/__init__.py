"""The figures: every one that the fits have something for."""

from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import InputError
from sweep.figures.approaches import draw_envelope, draw_isoflop, draw_parametric
from sweep.figures.checks import draw_conventions, draw_extrapolation, draw_sensitivity
from sweep.figures.style import save, set_style
from sweep.fit import EnvelopeFit, Fits, IsoflopFit, LawError, ParametricFit
from sweep.fit.isoflop import TooFewProfiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw_all",
    "draw_conventions",
    "draw_envelope",
    "draw_extrapolation",
    "draw_isoflop",
    "draw_parametric",
    "draw_sensitivity",
    "save",
    "set_style",
]


def draw_all(fits: Fits, out: Path) -> list[Path]:
    """Every figure that `fits` has something for, as PNG and SVG under `out`; the paths written, PNG first.

    Raises:
        InputError: if `out` cannot be written.
    """
    set_style()
    figures: list[tuple[str, Figure]] = []
    if isinstance(fits.envelope, EnvelopeFit):
        figures.append(("envelope", draw_envelope(fits, fits.envelope)))
    if isinstance(fits.isoflop, IsoflopFit | TooFewProfiles):
        figures.append(("isoflop", draw_isoflop(fits, fits.isoflop)))
    if isinstance(fits.parametric, ParametricFit):
        figures.append(("parametric", draw_parametric(fits, fits.parametric)))
    fitted = bool(figures)
    if any(variant.a for variant in fits.sensitivity):
        figures.append(("sensitivity", draw_sensitivity(fits)))
    if any(row.a for row in fits.conventions):
        figures.append(("conventions", draw_conventions(fits)))
    if not isinstance(fits.extrapolation, LawError):
        figures.append(("extrapolation", draw_extrapolation(fits, fits.extrapolation)))
    if not fitted:
        reasons = "; ".join(str(law) for law in (fits.envelope, fits.isoflop, fits.parametric))
        raise InputError(f"no law could be fitted, so there is nothing to draw: {reasons}")
    return [path for name, figure in figures for path in save(figure, out / name)]
