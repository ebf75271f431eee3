"""A law that is known from elsewhere, so that questions can be asked of it without runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches import Approach
from sweep.fit.result import Estimate, positive
from sweep.fit.surface import BESIROGLU, CHINCHILLA, Compute, Surface

if TYPE_CHECKING:
    from sweep.fit.approaches import Laws

PUBLISHED_LAWS = {"chinchilla": CHINCHILLA, "besiroglu": BESIROGLU}


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownLaw(Approach):
    """A surface L(N, D) whose constants are taken as exact: nothing that follows from it has an interval.

    Attributes:
        source: where it is from, in words.
        surface: its constants.
    """

    name: ClassVar[str] = "known law"
    number: ClassVar[int] = 0
    method: ClassVar[str] = "a known surface"
    form: ClassVar[str] = "L(N, D) = E + A / N^alpha + B / D^beta"
    resampled: ClassVar[str] = "nothing"
    variants: ClassVar[dict[str, str]] = {}
    has_other_sizes: ClassVar[bool] = True
    has_surface: ClassVar[bool] = True

    source: str
    surface: Surface

    @classmethod
    def of(cls, surface: Surface, source: str) -> "KnownLaw":
        a, b = Estimate(float(surface.a)), Estimate(float(surface.b))
        return cls(a=a, b=b, level=0.8, source=source, surface=surface)

    @classmethod
    def fit(cls, laws: "Laws") -> NoReturn:
        raise LawError("bad_option", "a known law is not fitted; ask fit_parametric for one that is")

    @property
    def replicates(self) -> Surface:
        """None: constants of shape (0,)."""
        return Surface(**dict.fromkeys(self.surface.constants, np.empty(0)), compute=self.surface.compute)

    def optimal(self, C: Any) -> tuple[Any, Any]:
        return self.surface.optimal(positive("C", C))

    def optimal_loss(self, C: Any) -> Any:
        return self.surface.frontier_loss(C)

    def predict(self, N: Any, D: Any) -> Any:
        return self.surface.predict(positive("N", N), positive("D", D))

    def penalty(self, C: float, factor: float) -> Estimate:
        return Estimate(float(self.surface.penalty(C, factor)))

    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.empty(0), np.empty(0), np.empty(0)

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source, **self.surface.constants}

    def remarks(self) -> list[str]:
        return []

    def summary(self) -> str:
        constants = ", ".join(f"{name} = {value:.5g}" for name, value in self.surface.constants.items())
        heading = f"The law of {self.source}, taken as exact, so that no number has an interval"
        return f"{heading}\n  {self.form}: {constants}; a = {self.a.value:.3g}"


def surface_of(fits: Mapping[str, Any]) -> Surface:
    """The surface of Approach 3 in what fits.json holds. Raises KeyError, TypeError or ValueError if there is none."""
    law = fits["parametric"]
    constants = {name: float(law[name]["value"]) for name in ("E", "A", "B", "alpha", "beta")}
    return Surface(**constants, compute=Compute(**law.get("compute", {})))
