"""Comparisons: what runs that differ in something else than N and D say, with intervals and verdicts."""

from sweep.compare.experiment import Claim, Measured, Outcome

__all__ = ["Claim", "Measured", "Outcome"]
