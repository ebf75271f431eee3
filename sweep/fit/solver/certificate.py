"""The evidence that a minimum is the global one, and how well it is determined."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The evidence for the optimum.

    Attributes:
        gradient_norm: of the objective at the optimum, in (a, b, e, alpha, beta) with centred logs; for least absolute
            deviations, of the smallest subgradient.
        hessian_eigenvalues: there, ascending; of the free directions.
        condition_number: the largest over the smallest, infinite if that is not positive beyond rounding.
        starts: how many pairs of exponents, each with its best A, B and E, were followed to their minimum.
        basin_share: the share of them that ended at the optimum.
        next_basin: the objective of the next-best minimum that a start ended in; None if there was no other.
        stationary: whether the gradient is zero up to rounding.
    """

    gradient_norm: float
    hessian_eigenvalues: tuple[float, ...]
    condition_number: float
    starts: int
    basin_share: float
    next_basin: float | None
    stationary: bool

    def line(self) -> str:
        """For a reader."""
        basin = f", next basin {self.next_basin:.6g}" if self.next_basin else ""
        return (
            f"{self.basin_share:.0%} of {self.starts} starts end here; gradient {self.gradient_norm:.1g}, condition number "
            f"{self.condition_number:.2g}{basin}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for an infinite condition number."""
        condition = self.condition_number if np.isfinite(self.condition_number) else None
        return {**vars(self), "hessian_eigenvalues": list(self.hessian_eigenvalues), "condition_number": condition}
