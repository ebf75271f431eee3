"""The figures: every one that the fits have something for."""

from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import InputError
from sweep.figures.approaches import draw_envelope, draw_frontier, draw_isoflop, draw_parametric
from sweep.figures.checks import draw_conventions, draw_extrapolation, draw_residuals, draw_sensitivity
from sweep.figures.style import save, set_style
from sweep.fit import EnvelopeFit, Fits, IsoflopFit, LawError, ParametricFit
from sweep.fit.approaches.isoflop import TooFewProfiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw_all",
    "draw_conventions",
    "draw_envelope",
    "draw_extrapolation",
    "draw_frontier",
    "draw_isoflop",
    "draw_parametric",
    "draw_residuals",
    "draw_sensitivity",
    "figures_of",
    "save",
    "set_style",
]


def draw_all(fits: Fits, out: Path) -> list[Path]:
    """Every figure that `fits` has something for, as PNG and SVG under `out`; the paths written, PNG first.

    Raises:
        InputError: if no law could be fitted, or `out` cannot be written.
    """
    return [path for name, figure in figures_of(fits).items() for path in save(figure, out / name)]


def figures_of(fits: Fits) -> dict[str, "Figure"]:
    """The same figures by name, unsaved. Raises InputError if no law could be fitted."""
    set_style()
    figures: dict[str, Figure] = {}
    if isinstance(fits.envelope, EnvelopeFit):
        figures["envelope"] = draw_envelope(fits, fits.envelope)
    if isinstance(fits.isoflop, IsoflopFit | TooFewProfiles):
        figures["isoflop"] = draw_isoflop(fits, fits.isoflop)
    if isinstance(fits.parametric, ParametricFit):
        figures["parametric"] = draw_parametric(fits, fits.parametric)
        figures["residuals"] = draw_residuals(fits, fits.parametric)
    laws = (fits.envelope, fits.isoflop, fits.parametric)
    if not figures:
        raise InputError(f"no law could be fitted, so there is nothing to draw: {'; '.join(map(str, laws))}")
    if not all(isinstance(law, LawError) for law in laws):
        figures["frontier"] = draw_frontier(fits)
    if any(variant.a for variant in fits.sensitivity):
        figures["sensitivity"] = draw_sensitivity(fits)
    if any(row.a for row in fits.conventions):
        figures["conventions"] = draw_conventions(fits)
    if not isinstance(fits.extrapolation, LawError):
        figures["extrapolation"] = draw_extrapolation(fits, fits.extrapolation)
    return figures
