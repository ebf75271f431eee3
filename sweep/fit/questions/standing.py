"""How the optimum grows with compute, the budgets at which given sizes are optimal, and how far named models are from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweep.fit.approaches import Approach
from sweep.fit.frontier import use_that_pays
from sweep.fit.questions.footprint import Footprint, footprint, footprint_of_hours
from sweep.fit.result import Estimate, Record, positive
from sweep.fit.surface import Surface, SurfaceLaw


@dataclass(frozen=True, kw_only=True)
class Growth(Record):
    """The factors by which N_opt and D_opt grow when compute grows tenfold: 10^a and 10^b; `by` is an approach or a paper."""

    by: str
    N: Estimate
    D: Estimate

    def line(self) -> str:
        if self in PUBLISHED:
            return f"N x {self.N.value:.2g}, D x {self.D.value:.2g} ({self.by})"
        return f"N x {self.N}, D x {self.D} ({self.by})"


# Exponents of Kaplan et al. 2020 (arXiv 2001.08361) and of Hoffmann et al. 2022 (arXiv 2203.15556, table 2, Approach 1).
PUBLISHED = tuple(
    Growth(by=name, N=Estimate(10**a, note="as published"), D=Estimate(10**b, note="as published"))
    for name, a, b in (("Kaplan et al. 2020, without embeddings", 0.73, 0.27), ("Chinchilla, Hoffmann et al. 2022", 0.50, 0.50))
)


def growth(fit: Approach) -> Growth:
    """What a tenfold C does to N_opt and D_opt, with the intervals of a and b."""
    N, D = (exponent.mapped(lambda x: 10**x) for exponent in (fit.a, fit.b))
    return Growth(by=fit.name, N=N, D=D)


@dataclass(frozen=True, kw_only=True)
class SizedRun(Record):
    """The run at which `N` parameters are compute-optimal, by one approach: FLOPs, tokens and their ratio to N."""

    approach: str
    N: float
    C: Estimate
    D: Estimate
    tokens_per_parameter: Estimate

    def line(self) -> str:
        run = f"C = {self.C}, D = {self.D}, {self.tokens_per_parameter} tokens per parameter"
        return f"N = {self.N:.4g}: {run} ({self.approach})"


def sized_runs(fit: Approach, sizes: Sequence[float]) -> list[SizedRun]:
    """The budget and tokens of each of `sizes`, with the fit's intervals (Hoffmann et al. 2022, tables 3 and A3).

    N_opt and D_opt are power laws of C by every approach, so two budgets tell them and their inverse."""
    C = np.array([1e18, 1e24])
    optimal = np.log([fit.optimal(float(each)) for each in C])  # (budgets, N and D)
    drawn = np.log([fit.resampled_at(float(each))[:2] for each in C])  # (budgets, N and D, resamples)
    rows = []
    for N in map(float, positive("sizes", list(sizes))):
        (of_C, of_D), (drawn_C, drawn_D) = _inverse(np.log(C), optimal[..., None], N), _inverse(np.log(C), drawn, N)
        pairs = ((of_C, drawn_C), (of_D, drawn_D), (of_D / N, drawn_D / N))
        C_at, D_at, ratio = (Estimate.from_resamples(float(x[0]), xs, fit.level) for x, xs in pairs)
        rows.append(SizedRun(approach=fit.name, N=N, C=C_at, D=D_at, tokens_per_parameter=ratio))
    return rows


def _inverse(log_C: np.ndarray, logs: np.ndarray, N: float) -> tuple[np.ndarray, np.ndarray]:
    """C and D at which `N` is optimal, each (laws,), from log N_opt and log D_opt at two budgets, shape (2, 2, laws); NaN for
    laws whose N_opt does not grow."""
    a, b = (logs[1] - logs[0]) / (log_C[1] - log_C[0])
    with np.errstate(all="ignore"):
        steps = np.where(a > 0, (np.log(N) - logs[0, 0]) / a, np.nan)
        return np.exp(log_C[0] + steps), np.exp(logs[0, 1] + b * steps)


@dataclass(frozen=True, kw_only=True)
class Placement(Record):
    """A model of `N` parameters trained on `D` tokens, against the frontier.

    Attributes:
        name, N, D, C: which model, and the FLOPs of its training.
        loss: that the surface gives it, in nats per token.
        N_opt, D_opt, best_loss: the optimum at the same C.
        distance: loss - best_loss.
        C_needed: the FLOPs for which the frontier has the model's loss.
        wasted: C / C_needed, at least 1.
        use: the tokens of use for which it is the cheapest way to its loss over training and use; negative if a smaller one is,
            however little it is used.
        footprint: of its training; None if neither its GPU-hours nor a speed is known.
        flops_per_second: of a GPU, by its GPU-hours or as asked.
    """

    name: str
    N: float
    D: float
    C: float
    loss: Estimate
    N_opt: Estimate
    D_opt: Estimate
    best_loss: Estimate
    distance: Estimate
    C_needed: Estimate
    wasted: Estimate
    use: Estimate
    footprint: Footprint | None = None
    flops_per_second: float | None = None

    def lines(self) -> list[str]:
        at = f", {self.flops_per_second:.3g} FLOP/s per GPU" if self.flops_per_second else ""
        return [
            f"{self.name}: N = {self.N:.4g}, D = {self.D:.4g}, C = {self.C:.3g}: loss {self.loss}",
            f"  optimal at this C: N = {self.N_opt}, D = {self.D_opt}, loss {self.best_loss}",
            f"  {self.distance} above the frontier, which has its loss at C = {self.C_needed}, {self.wasted} times less",
            self._of_use(),
            *([f"  {self.footprint.line()}{at}"] if self.footprint else []),
        ]

    def _of_use(self) -> str:
        if self.use.value >= 0:
            return f"  the cheapest way to its loss if it serves {self.use} tokens"
        never = "  never the cheapest way to its loss: a smaller model on more tokens is, however little it is used"
        return f"{never}; or up to {self.use.high:.3g} tokens" if self.use.high and self.use.high > 0 else never


def place(
    fit: SurfaceLaw,
    name: str,
    N: float,
    D: float,
    *,
    gpu_hours: float | None = None,
    flops_per_second: float | None = None,
    watts: float = 700,
    pue: float = 1.1,
    tonnes_per_MWh: float = 0.385,
) -> Placement:
    """Where a model stands, by the surface; the losses are comparable with a published one only on the same text and
    tokenizer, distances and factors of compute more widely. The footprint is that of `gpu_hours`, or else of its C at
    `flops_per_second`."""
    C = float(fit.surface.compute.flops(N, D))
    value, drawn = _standing(fit.surface, N, D, C), _standing(fit.replicates, N, D, C)
    found = {key: Estimate.from_resamples(float(value[key]), drawn[key], fit.level) for key in value}
    # No resample is below the frontier, and where its interval of N_opt holds N, the model may be on it.
    N_opt = found["N_opt"]
    if N_opt.contains(N):
        found |= {"distance": replace(found["distance"], low=0.0), "wasted": replace(found["wasted"], low=1.0)}
        found["C_needed"] = replace(found["C_needed"], high=C)
    if found["use"].low is not None and found["use"].value >= 0:
        found["use"] = replace(found["use"], low=max(found["use"].low, 0.0))
    power = {"watts": watts, "pue": pue, "tonnes_per_MWh": tonnes_per_MWh}
    taken: Footprint | None = None
    if gpu_hours is not None:
        taken, flops_per_second = footprint_of_hours(gpu_hours, **power), C / gpu_hours / 3600
    elif flops_per_second is not None:
        taken = footprint(C, flops_per_second=flops_per_second, **power)
    return Placement(name=name, N=N, D=D, C=C, **found, footprint=taken, flops_per_second=flops_per_second)


def _standing(surface: Surface, N: float, D: float, C: float) -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):  # a resample may have no frontier
        loss, (N_opt, D_opt) = surface.predict(N, D), surface.optimal(C)
        best, needed = surface.frontier_loss(C), surface.budget_for_loss(loss)
        return {
            "loss": loss,
            "N_opt": N_opt,
            "D_opt": D_opt,
            "best_loss": best,
            "distance": loss - best,
            "C_needed": needed,
            "wasted": C / needed,
            "use": use_that_pays(surface, N, D),
        }
