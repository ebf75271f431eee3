"""Scaling laws from a table of runs: Chinchilla's three approaches (Hoffmann et al. 2022, arXiv 2203.15556).

    fit_envelope    Approach 1: the lower envelope of the training curves
    fit_isoflop     Approach 2: parabolas through the runs of each budget
    fit_parametric  Approach 3: L(N, D) = E + A / N^alpha + B / D^beta

Nothing here trains or draws, and torch is never imported.
"""

from sweep.fit.envelope import EnvelopeFit, fit_envelope, smooth_curve
from sweep.fit.fits import Fits, fit_all
from sweep.fit.isoflop import IsoflopFit, Profile, fit_isoflop
from sweep.fit.parametric import ParametricFit, fit_parametric
from sweep.fit.result import Estimate, LawError
from sweep.fit.table import Curve, Exclusion, RunTable, read_curves, read_runs

__all__ = [
    "Curve",
    "EnvelopeFit",
    "Estimate",
    "Exclusion",
    "Fits",
    "IsoflopFit",
    "LawError",
    "ParametricFit",
    "Profile",
    "RunTable",
    "fit_all",
    "fit_envelope",
    "fit_isoflop",
    "fit_parametric",
    "read_curves",
    "read_runs",
    "smooth_curve",
]
