"""Scaling laws from a table of runs. Nothing here trains or draws, and torch is never imported.

    fit_envelope    Approach 1: the lower envelope of the training curves   } Hoffmann et al. 2022
    fit_isoflop     Approach 2: valleys through the runs of each budget     } (Chinchilla,
    fit_parametric  Approach 3: L(N, D) = E + A / N^alpha + B / D^beta      } arXiv 2203.15556)
    fit_kaplan      L(N), L(D), L(C), L(N, D), L(N, S) of Kaplan et al. 2020 (arXiv 2001.08361); there is a function for each

    allocate        N, D and the loss at any C; budget_for_loss, size_penalty, lifetime_optimum, use_that_pays are its inverses;
                    footprint is the energy
    improvement     what less loss takes, by N, D or both; doubling, growth, sized_runs and place: more of the papers' questions
    hold_out        predict the largest budgets from the smaller ones; predict_runs predicts single new runs
    collapse        whether the normalised curves of the best runs fall on each other
    sensitivity     the exponent under every other choice; compare_conventions counts N and C in every way
    KnownLaw        a law from elsewhere, such as the published ones, of which the same can be asked
    next_runs       the runs that would tell most
    fit_all         all of it, and the verdict

Fits take arrays N, D, loss, a pandas table with these columns, or a `RunTable`. They return frozen results with `summary()`,
`to_dict()` and `predict(N, D)`, or raise `LawError`: its `status` is a short name for what its message explains. `Intervals`
says how intervals are made.
"""

from sweep.errors import LawError
from sweep.fit.answers import Answers, answer
from sweep.fit.approaches import APPROACHES, Approach, Laws, Options
from sweep.fit.approaches.envelope import EnvelopeFit, fit_envelope
from sweep.fit.approaches.isoflop import IsoflopFit, fit_isoflop
from sweep.fit.approaches.parametric import ParametricFit, fit_parametric
from sweep.fit.approaches.profile import Profile
from sweep.fit.design import NextRuns, next_runs
from sweep.fit.fits import Fits, fit_all
from sweep.fit.frontier import (
    Allocation,
    allocate,
    allocate_sizes,
    budget_for_loss,
    lifetime_optimum,
    size_penalty,
    use_that_pays,
)
from sweep.fit.judge.collapse import Collapse, collapse
from sweep.fit.judge.conventions import compare_conventions
from sweep.fit.judge.holdout import hold_out, predict_runs, rolling_hold_out
from sweep.fit.judge.predictions import HoldOut, RollingHoldOut
from sweep.fit.judge.sensitivity import Variant, sensitivity
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.kaplan.critical_batch import fit_critical_batch
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.table import fit_kaplan, steps_to_loss
from sweep.fit.questions.asked import Questions
from sweep.fit.questions.footprint import footprint, footprint_of_hours
from sweep.fit.questions.improve import doubling, improvement
from sweep.fit.questions.known import PUBLISHED_LAWS, KnownLaw, surface_of
from sweep.fit.questions.standing import growth, place, sized_runs
from sweep.fit.result import NO_INTERVALS, Estimate, Intervals, PowerLaw, Refused
from sweep.fit.surface import Compute, Surface
from sweep.store.curves import smooth_curve
from sweep.tables.conventions import tables_by_convention
from sweep.tables.curves import Curve, read_curves
from sweep.tables.readers import read_frame
from sweep.tables.table import Exclusion, RunTable, read_runs, runs_from_frame
from sweep.tables.units import Units
