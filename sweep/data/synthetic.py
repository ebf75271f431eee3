r"""A corpus whose entropy rate is known: a walk on a weighted graph of tokens.

The chance of token j after token i is P_ij = W_ij / w_i, with symmetric weights W_ij = z_i z_j exp S_ij and w_i = Σ_j W_ij.
Such a chain is reversible, so its stationary distribution is π_i = w_i / Σ w, and its entropy rate

    h = - Σ_i π_i Σ_j P_ij log P_ij        (Cover & Thomas, Elements of Information Theory, section 4.3)

is exact. The next token depends only on the last one, so one input token is all the context that helps. The loss of an
unlimited model after unlimited data is therefore h at every position of every sequence, which is E of the parametric law.

Two power laws make learning gradual. S has eigenvalues ∝ r^-decay in a random basis, and a model of width d resolves about
the first d of them (as in Maloney et al., arXiv 2210.16859): the rest falls as Σ_{r>d} r^(-2 decay) ∝ d^(1 - 2 decay). And
z_k ∝ (k + offset)^-zipf makes contexts as rare as words are, so that more training tokens meet more of them (Hutter, arXiv
2102.04074).
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sweep.config import CorpusSpec, SyntheticConfig
from sweep.data.parts import write_tokens
from sweep.errors import InputError

MAX_VOCAB_SIZE = 8192  # the transition matrix is dense: half a GB
PIECE = 1 << 20  # tokens drawn at once


@dataclass(frozen=True)
class MarkovChain:
    """A reversible Markov chain on tokens, made of W: symmetric and positive, shape (V, V)."""

    weights: np.ndarray

    @classmethod
    def make(cls, config: SyntheticConfig, vocab_size: int) -> "MarkovChain":
        """The chain of `vocab_size` tokens that `config` describes."""
        rng = np.random.default_rng((config.seed, 0))
        z = (np.arange(1.0, vocab_size + 1) + config.offset) ** -config.zipf
        basis, _ = np.linalg.qr(rng.standard_normal((vocab_size, vocab_size)))
        eigenvalues = np.arange(1.0, vocab_size + 1) ** -config.decay * rng.choice([-1.0, 1.0], vocab_size)
        S = (basis * eigenvalues) @ basis.T
        S = (S + S.T) * (config.coupling / (S + S.T).std())
        return cls(z[:, None] * z * np.exp(S))

    @cached_property
    def transitions(self) -> np.ndarray:
        """P, shape (V, V): row i is the distribution after token i."""
        return self.weights / self.weights.sum(axis=1, keepdims=True)

    @cached_property
    def stationary(self) -> np.ndarray:
        """π, shape (V,)."""
        degree = self.weights.sum(axis=1)
        return degree / degree.sum()

    @property
    def entropy_rate(self) -> float:
        """h, nats per token."""
        return float(-(self.stationary[:, None] * self.transitions * np.log(self.transitions)).sum())

    @property
    def unigram_entropy(self) -> float:
        """The loss of a model that only knows the frequencies of tokens, nats per token."""
        return float(-(self.stationary * np.log(self.stationary)).sum())

    def sample(self, tokens: int, seed: tuple[int, ...]) -> np.ndarray:
        """A walk of `tokens` tokens that starts from the stationary distribution, shape (tokens,), uint16."""
        rng = np.random.default_rng(seed)
        # Rows of Python floats: bisecting them is ten times as fast as a numpy call for each token.
        rows = [row.tolist() for row in np.cumsum(self.transitions, axis=1)[:, :-1]]
        state = int(rng.choice(len(rows), p=self.stationary))
        walk = np.empty(tokens, dtype=np.uint16)
        walk[0] = state
        for start in range(1, tokens, PIECE):
            piece = []
            for u in rng.random(min(PIECE, tokens - start)).tolist():
                state = bisect_right(rows[state], u)
                piece.append(state)
            walk[start : start + len(piece)] = piece
        return walk

    def loss(self, tokens: np.ndarray) -> float:
        """The loss of the best possible predictor on `tokens`: the mean -log P of all but the first, nats per token."""
        log_p = np.log(self.transitions)
        return float(-np.mean(log_p[tokens[:-1], tokens[1:]]))


@dataclass(frozen=True)
class SyntheticContents:
    """Contents of a corpus of two independent walks on one chain; see `sweep.data.corpus.Contents`."""

    spec: CorpusSpec
    config: SyntheticConfig

    @classmethod
    def read(cls, spec: CorpusSpec) -> "SyntheticContents":
        """Check `spec`. Raises InputError if the vocabulary is too large."""
        if spec.vocab_size > MAX_VOCAB_SIZE:
            raise InputError(
                f"data.vocab_size={spec.vocab_size:,} is too large for data.source=synthetic; take at most {MAX_VOCAB_SIZE:,}"
            )
        return cls(spec, spec.synthetic or SyntheticConfig())

    @property
    def vocab_size(self) -> int:
        return self.spec.vocab_size

    @cached_property
    def chain(self) -> MarkovChain:
        return MarkovChain.make(self.config, self.spec.vocab_size)

    def identity(self) -> dict:
        chain = {**asdict(self.config), "vocab_size": self.spec.vocab_size}
        return {"format": 2, "synthetic": chain, "validation_tokens": self.spec.validation_tokens}

    def training_tokens(self) -> float:
        return int(self.config.tokens)

    def size(self) -> float:
        return 2 * (self.config.tokens + self.spec.validation_tokens)

    def write(self, directory: Path, work: Path, workers: int | None, advance: Callable[[int], None]) -> dict:
        """Write both walks. The manifest has the entropy rate, and for each part the loss of the best predictor, both in nats
        per token."""
        lengths = {"train": int(self.config.tokens), "validation": self.spec.validation_tokens + 1}
        parts = {}
        for number, (part, tokens) in enumerate(lengths.items(), start=1):
            walk = self.chain.sample(tokens, (self.config.seed, number))
            written = write_tokens(directory / f"{part}.bin", [walk.tobytes()], walk.dtype)
            parts[part] = {**written, "best_loss": self.chain.loss(walk)}
            advance(walk.nbytes)
        return {
            "tokenizer": "none",
            "vocab_size": self.vocab_size,
            "entropy_rate": self.chain.entropy_rate,
            "unigram_entropy": self.chain.unigram_entropy,
            "dtype": "uint16",
            "parts": parts,
        }
