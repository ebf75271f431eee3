"""Simulated sweeps with a known law: a planted surface with noise, as tables and curves in the format of a real sweep.

Fits of them can be checked against the truth: constants, intervals, and the value of a next run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.fit.surface import Surface
from sweep.tables.curves import Curve
from sweep.tables.table import RunTable

CURVE_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How measured losses scatter about the surface; all standard deviations are of log L.

    Attributes:
        run: between runs, as from the seed; shared by the whole curve of a run.
        step: along a curve, between its points.
        memory: correlation of neighbouring points of a curve, 0 to below 1.
        decay: the scatter of runs falls as (C / geometric mean C)^-decay, so that small runs are noisier.
        undecayed: how much higher, in nats, a curve is before its learning rate has decayed; zero at the horizon.
    """

    run: float = 0.0
    step: float = 0.0
    memory: float = 0.0
    decay: float = 0.0
    undecayed: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulator:
    """The losses that a sweep would have measured, without training.

    Attributes:
        surface: the truth, including the cost C of a run.
        noise: of the losses.
        seed: of the noise.
    """

    surface: Surface
    noise: Noise = Noise()
    seed: int = 0

    def isoflop(
        self, budgets: Sequence[float] | np.ndarray, *, sizes: int = 7, span: float = 16, off_centre: float = 1.0
    ) -> RunTable:
        """Runs at each of `budgets` with `sizes` models spread over a factor `span` in N around `off_centre` times N_opt."""
        spread = np.geomspace(span**-0.5, span**0.5, sizes) if sizes > 1 else np.ones(1)
        N = np.concatenate([off_centre * self.surface.optimal(budget)[0] * spread for budget in budgets])
        C = np.repeat(np.asarray(budgets, dtype=float), sizes)
        return self.runs(N, self.surface.compute.tokens(N, C), budget=C)

    def runs(self, N: np.ndarray, D: np.ndarray, *, budget: np.ndarray | None = None) -> RunTable:
        """Runs of `N` parameters on `D` tokens, each of shape (runs,)."""
        C = self.surface.compute.flops(N, D)
        scale = self.noise.run * (C / np.exp(np.log(C).mean())) ** -self.noise.decay
        loss = self.surface.predict(N, D) * np.exp(scale * np.random.default_rng([self.seed, 0]).standard_normal(len(N)))
        return RunTable(
            run_id=np.array([f"simulated-{i:04d}" for i in range(len(N))]),
            N=np.asarray(N, dtype=float),
            D=np.asarray(D, dtype=float),
            C=C,
            loss=loss,
            budget=np.full(len(N), np.nan) if budget is None else budget,
        )

    def curves(self, runs: RunTable, *, points: int = CURVE_POINTS, start: float = 1e-3) -> list[Curve]:
        """The training curves that end in `runs`, at `points` log-spaced shares of the horizon from `start` to 1."""
        rng = np.random.default_rng([self.seed, 1])
        noise, share = self.noise, np.geomspace(start, 1, points)
        curves = []
        for i, (N, D) in enumerate(zip(runs.N, runs.D, strict=True)):
            shared = np.log(runs.loss[i] / self.surface.predict(N, D))
            jitter = rng.standard_normal(points)
            for k in range(1, points):
                jitter[k] = noise.memory * jitter[k - 1] + np.sqrt(1 - noise.memory**2) * jitter[k]
            annealing = noise.undecayed * 0.5 * (1 + np.cos(np.pi * share))  # as the cosine schedule leaves it
            loss = (self.surface.predict(N, share * D) + annealing) * np.exp(shared + noise.step * jitter)
            curves.append(
                Curve(run_id=str(runs.run_id[i]), N=float(N), flops_per_token=float(runs.C[i] / D), tokens=share * D, loss=loss)
            )
        return curves
