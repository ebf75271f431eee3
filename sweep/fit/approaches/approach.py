"""The interface of the three approaches of Hoffmann et al. 2022 (Chinchilla, arXiv 2203.15556), and of any other law of N_opt.

A new approach is a subclass of `Approach` in a file of its own, and its entry in `sweep.fit.approaches.APPROACHES`. A function
that draws it may register itself in `sweep.figures`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.laws import CriticalBatch
from sweep.fit.result import SAME, Estimate, Intervals, PowerLaw, Record, positive
from sweep.fit.surface import Compute

if TYPE_CHECKING:
    from sweep.config import FitConfig
    from sweep.fit.approaches import Laws


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the approaches are fitted.

    Attributes:
        objective, delta, tied, fixed_E: of Approach 3; see `fit_parametric`.
        seed_noise: of Approach 2; see `fit_isoflop`.
        envelope, envelope_points: method and points of Approach 1; see `fit_envelope`.
        critical_batch: of Kaplan's L(N, S); see `fit_kaplan`.
        intervals: of all of them.
    """

    objective: str = "huber"
    delta: float = 1e-3
    tied: bool = False
    fixed_E: float | None = None
    seed_noise: float | None = None
    envelope: str = "between_sizes"
    envelope_points: int = 1500
    critical_batch: CriticalBatch | None = None
    intervals: Intervals = Intervals()

    @classmethod
    def of(cls, config: "FitConfig") -> "Options":
        """The options that a sweep's configuration asks for."""
        return cls(
            objective=config.objective,
            delta=config.huber_delta,
            tied=config.tied,
            fixed_E=config.fixed_E,
            seed_noise=config.seed_noise,
            envelope=config.envelope,
            envelope_points=config.envelope_points,
            critical_batch=None if config.critical_batch is None else CriticalBatch(**vars(config.critical_batch)),
            intervals=Intervals(config.resamples, config.level, config.seed),
        )

    @property
    def surface(self) -> dict[str, Any]:
        """The keyword arguments of `fit_parametric`."""
        return {name: getattr(self, name) for name in ("objective", "delta", "tied", "fixed_E", "intervals")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Approach(Record, ABC):
    """A fitted law of the compute-optimal N_opt(C) and D_opt(C), and what its kind is called.

    Attributes:
        name: in fits.json, on the command line and in tables.
        number: "Approach 1" and so on; it orders the approaches.
        method: what it does, in a few words.
        form: the law it fits.
        resampled: what its intervals resample.
        variants: its estimates of a: the attribute of each, by a label for readers.
        reads_curves: whether it is fitted to training curves; else to the runs' final losses.
        by_convention: whether it can be fitted when N and C are counted otherwise than the grid was planned.
        has_surface: whether it knows L(N, D), and so E; if so `surface` and `replicates` are a `Surface`.
        a, b: the exponents of N_opt and D_opt in C.
        level: of the intervals.
        status: "converged", or what is wrong with the fit.
    """

    name: ClassVar[str]
    number: ClassVar[int]
    method: ClassVar[str]
    form: ClassVar[str] = "N_opt = k C^a and D_opt = k′ C^b; the loss there a power law of C without E"
    resampled: ClassVar[str]
    variants: ClassVar[dict[str, str]]
    reads_curves: ClassVar[bool] = False
    by_convention: ClassVar[bool] = True
    has_surface: ClassVar[bool] = False
    fitted: ClassVar[bool] = True

    a: Estimate
    b: Estimate
    level: float
    status: str = "converged"

    @classmethod
    @abstractmethod
    def fit(cls, laws: "Laws") -> Self:
        """Fit the table and curves of `laws`; `laws` also holds the other approaches' fits. Raises LawError."""

    @classmethod
    def title(cls) -> str:
        return f"Approach {cls.number}"

    @classmethod
    def heading(cls) -> str:
        return f"{cls.title()}, {cls.method}"

    @property
    def reach(self) -> float:
        """The largest C at which its loss is believed."""
        return np.inf

    @abstractmethod
    def optimal(self, C: Any) -> tuple[Any, Any]:
        """(N_opt, D_opt) at budgets of `C` FLOPs. Raises LawError if C is not positive."""

    @abstractmethod
    def optimal_loss(self, C: Any) -> Any:
        """The loss of the optimal run at `C` FLOPs, nats per token."""

    @abstractmethod
    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D). Raises LawError if N or D is not positive."""

    def penalty(self, C: float, factor: float) -> Estimate:
        """How much higher the loss is at `C` FLOPs with `factor` times N_opt, in nats. Raises LawError if it cannot tell."""
        raise LawError("bad_option", f"{self.title()} knows the best size at each C, not what another one costs")

    @abstractmethod
    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """N_opt, D_opt and the loss at `C` of every resample, each of shape (resamples,)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What fits.json holds."""

    @abstractmethod
    def remarks(self) -> list[str]:
        """What a reader should know beside a and b, a line each."""

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        """What was chosen in the fit, for the report's checklist: questions and answers; `unit` is that of the loss."""
        yield from ()

    def summary(self) -> str:
        return "\n".join([self.heading(), f"  a = {self.a}   b = {self.b}", *(f"  {remark}" for remark in self.remarks())])


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerLaws(Approach):
    """An approach whose N_opt, D_opt and loss are power laws of C, found without a surface.

    Attributes:
        N_law, D_law, loss_law: the laws in C.
        compute: what C the runs cost.
        replicates: the laws "N", "D" and "loss" as they may be: functions of C that return shape (resamples,).
    """

    N_law: PowerLaw
    D_law: PowerLaw
    loss_law: Any
    compute: Compute
    replicates: Mapping[str, Any] = field(repr=False)

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest C that was fitted."""

    @property
    def reach(self) -> float:
        return self.largest * (1 + SAME)

    def optimal(self, C: Any) -> tuple[Any, Any]:
        return self.N_law(positive("C", C)), self.D_law(C)

    def optimal_loss(self, C: Any) -> Any:
        return self.loss_law(C)

    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        N, D, loss = (self.replicates[name](C) for name in ("N", "D", "loss"))
        return N, D, loss

    def laws_to_dict(self) -> dict[str, Any]:
        """The entries of fits.json that such approaches share."""
        coefficients = {"N_coefficient": self.N_law.coefficient, "D_coefficient": self.D_law.coefficient}
        return self.pick("a", "b") | coefficients | self.pick("loss_law")
