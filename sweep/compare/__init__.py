"""Comparisons: what runs that differ in something else than N and D say, with intervals and verdicts."""

from collections.abc import Callable
from importlib import import_module

from sweep.compare.experiment import Claim, Measured, Outcome
from sweep.errors import InputError

__all__ = ["ANALYSES", "Claim", "Measured", "Outcome", "analysis"]
# The modules of `experiments` that have a function `analyse`.
ANALYSES = (
    "architecture",
    "batch",
    "gopher",
    "head_to_head",
    "infilling",
    "kaplan_chinchilla",
    "overtrained",
    "repetition",
    "shape",
    "tasks",
    "transfer",
)


def analysis(name: str) -> Callable[[Measured], Outcome]:
    """The analysis that about.analysis names. Raises InputError if there is none."""
    if name not in ANALYSES:
        raise InputError(f"about.analysis={name} is none of {', '.join(ANALYSES)}")
    return import_module(f"sweep.compare.experiments.{name}").analyse
