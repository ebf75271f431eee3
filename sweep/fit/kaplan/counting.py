"""From Kaplan et al.'s counting, which leaves out embeddings in N and in C, to all parameters: the answers of both compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.surface import Surface

SIZES, BEYOND = 400, 2.0  # among which an answer is looked for, and how far beyond those known, in log N


@dataclass(frozen=True, kw_only=True)
class Counting:
    """The share of the parameters that Kaplan et al. count, along a family of sizes; the same beyond them.

    Attributes:
        log_N: of all parameters, shape (sizes,), ascending.
        log_share: of those without embeddings among them, shape (sizes,).
    """

    log_N: np.ndarray
    log_share: np.ndarray

    @classmethod
    def of(cls, N: Any, N_non_embedding: Any) -> "Counting":
        """Of models of `N` parameters, `N_non_embedding` of them without embeddings; each of shape (models,)."""
        log_N, first = np.unique(np.log(np.asarray(N, dtype=float)), return_index=True)
        return cls(log_N=log_N, log_share=np.log(np.asarray(N_non_embedding, dtype=float))[first] - log_N)

    def answers(self, surface: Surface, C: float) -> np.ndarray:
        """All parameters of the model that a law asks for at `C` = 6 N D FLOPs, where its own N and C leave out embeddings: the
        N whose part without embeddings is what the law has for that part of C. Shape (surfaces,), one for each of the surface's
        constants; NaN where no size near the family's is the answer."""
        log_N = np.linspace(self.log_N[0] - BEYOND, self.log_N[-1] + BEYOND, SIZES)
        log_share = np.interp(log_N, self.log_N, self.log_share)
        constants = {name: np.atleast_1d(value)[:, None] for name, value in surface.constants.items()}
        with np.errstate(all="ignore"):  # a resample may have no frontier
            wanted = np.log(Surface(**constants, compute=surface.compute).optimal(C * np.exp(log_share))[0])
        above = log_N + log_share - wanted  # grows with N, as N_opt grows more slowly than C
        return np.array([np.exp(np.interp(0, row, log_N, left=np.nan, right=np.nan)) for row in above])
