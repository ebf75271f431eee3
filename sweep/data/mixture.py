"""Which documents are trained on, how often, and which are held out: decided on their index, before any token is copied.

LLaMA's Table 1 (Touvron et al., arXiv 2302.13971) gives each source a share of the training tokens and the resulting epochs.
Here `weight` is that share and `epochs` limits how often the source is repeated; the corpus ends where the first source
reaches its limit. Without weights every source is repeated `epochs` times, and the shares follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweep.config import SourceConfig
from sweep.errors import InputError
from sweep.words import counted

WEIGHTS_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Share:
    """What one source contributes: a fraction of all training tokens, their number, and how often it is repeated for them."""

    share: float
    tokens: float
    epochs: float


def check_weights(sources: Mapping[str, SourceConfig]) -> None:
    """Raises InputError if a mixture is empty, some of its sources have no weight, or the weights do not add up to 1."""
    if not sources:
        raise InputError("data.sources is empty; name the sources of the mixture, for instance as in conf/data/mixture.yaml")
    weights = {name: source.weight for name, source in sources.items()}
    given = {name: weight for name, weight in weights.items() if weight is not None}
    if given and len(given) < len(sources):
        lacking = ", ".join(name for name in weights if name not in given)
        raise InputError(f"data.sources: {lacking} has no weight and others have one; give every source a weight, or none")
    if given and abs(sum(given.values()) - 1) > WEIGHTS_TOLERANCE:
        listed = ", ".join(f"{name} {weight:g}" for name, weight in given.items())
        raise InputError(f"data.sources: the weights add up to {sum(given.values()):.6g} ({listed}); make them add up to 1")


def shares(sources: Mapping[str, SourceConfig], sizes: Mapping[str, float]) -> dict[str, Share]:
    """The share of each source, given the tokens of each."""
    if any(source.weight is None for source in sources.values()):
        tokens = {name: source.epochs * sizes[name] for name, source in sources.items()}
        total = sum(tokens.values())
        return {name: Share(tokens[name] / total, tokens[name], sources[name].epochs) for name in sources}
    total = min(source.epochs * sizes[name] / source.weight for name, source in sources.items() if source.weight)
    return {
        name: Share(source.weight, source.weight * total, source.weight * total / sizes[name])
        for name, source in sources.items()
        if source.weight
    }


@dataclass(frozen=True)
class Documents:
    """All documents of a corpus, as columns of shape (documents,).

    Attributes:
        digest: the first half of each one's SHA-256.
        tokens, bytes: the length of each one.
        source: the index of its source.
        part, start: where its tokens are: the index of the part, and the position in it.
        line_counts: how many entries of `lines` belong to each document.
        lines: hashes of the distinct lines of each document, one document after another; None unless near duplicates are
            removed.
    """

    digest: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    source: np.ndarray
    part: np.ndarray
    start: np.ndarray
    line_counts: np.ndarray
    lines: np.ndarray | None

    def where(self, kept: np.ndarray) -> "Documents":
        """The documents that a mask selects."""
        columns = {name: column[kept] for name, column in vars(self).items() if name != "lines"}
        return Documents(**columns, lines=None if self.lines is None else self.lines[np.repeat(kept, self.line_counts)])


@dataclass(frozen=True)
class Selection:
    """Which documents are trained on and which are held out, as indices into `Documents`.

    Attributes:
        validation: the held-out documents, in order; the last one of each source is cut.
        cut: how many tokens of each of them are used.
        train: the training documents, in order; a document may occur several times.
        distinct: the distinct training documents of each source.
        left_out, left_out_bytes: how many documents are not used at all, and their bytes, by reason.
    """

    validation: np.ndarray
    cut: np.ndarray
    train: np.ndarray
    distinct: dict[str, np.ndarray]
    left_out: dict[str, int]
    left_out_bytes: dict[str, int]


def select(
    documents: Documents,
    sources: Mapping[str, SourceConfig],
    *,
    held_out: int,
    seed: int,
    deduplicate: bool = True,
    near_duplicates: float | None = None,
    may_hold_out: np.ndarray | None = None,
) -> Selection:
    """Choose and order documents.

    Documents are sorted by content, then shuffled, so that the order does not depend on file names. The first documents of each
    source are held out, up to the source's share of the held-out tokens; the rest are trained on. No document is in both parts.
    Raises TooShortError if a source is too short for its share of the held-out part, or has nothing left to train on.

    Args:
        documents: all documents.
        sources: configuration of each source, in the order of `documents.source`.
        held_out: tokens of the held-out part.
        seed: of the order.
        deduplicate: use each document once, from the first source that has it.
        near_duplicates: leave out a document if at least this fraction of its lines is in documents before it.
        may_hold_out: which documents may be held out, a mask of shape (documents,); by default all.
    """
    by_content = np.argsort(documents.digest, kind="stable")
    if deduplicate:
        _, by_content = np.unique(documents.digest, return_index=True)
    order = by_content[np.random.default_rng(seed).permutation(len(by_content))]
    left_out = {"duplicates": len(documents.digest) - len(order)}
    left_out_bytes = {"duplicates": int(documents.bytes.sum() - documents.bytes[order].sum())}
    if near_duplicates is not None:
        repeats = repetitive(documents, order, near_duplicates)
        left_out["near_duplicates"] = int(repeats.sum())
        left_out_bytes["near_duplicates"] = int(documents.bytes[order[repeats]].sum())
        order = order[~repeats]
    too_short = TooShortError(int(documents.tokens[order].sum()), held_out - 1, len(order))

    def sizes(parts: Sequence[np.ndarray]) -> dict[str, float]:
        tokens = [float(documents.tokens[part].sum()) for part in parts]
        if not all(tokens):
            raise too_short
        return dict(zip(sources, tokens, strict=True))

    of_source = [order[documents.source[order] == number] for number in range(len(sources))]
    fractions = [share.share for share in shares(sources, sizes(of_source)).values()]
    edges = np.round(np.cumsum(fractions) / sum(fractions) * held_out).astype(int)
    quotas = np.diff(edges, prepend=0).tolist()  # integers that add up to `held_out`
    validation, cut = [], []
    for chosen, quota in zip(of_source, quotas, strict=True):
        candidates = chosen if may_hold_out is None else chosen[may_hold_out[chosen]]
        ends = np.cumsum(documents.tokens[candidates], dtype=np.int64)
        if not len(ends) or ends[-1] < quota:
            raise too_short
        held = candidates[: int(np.searchsorted(ends, quota)) + 1] if quota else candidates[:0]
        used = documents.tokens[held].astype(np.int64)
        if quota:  # the rest of the document that fills it is dropped, not trained on
            used[-1] -= int(used.sum()) - quota
        validation.append(held)
        cut.append(used)
    held_out_too = np.isin(documents.digest, documents.digest[np.concatenate(validation)])
    rest = [chosen[~held_out_too[chosen]] for chosen in of_source]
    trained = [
        _repeat(chosen, documents.tokens[chosen], share.tokens)
        for chosen, share in zip(rest, shares(sources, sizes(rest)).values(), strict=True)
    ]
    train = np.concatenate(trained)
    if len(sources) > 1 or len(train) > len(rest[0]):  # otherwise it is in random order already
        train = train[np.random.default_rng((seed, 1)).permutation(len(train))]
    unused = [chosen[len(used) :] for chosen, used in zip(rest, trained, strict=True)]  # a source is used from its start
    left_out["not_needed"] = sum(map(len, unused))
    left_out_bytes["not_needed"] = sum(int(documents.bytes[chosen].sum()) for chosen in unused)
    return Selection(
        validation=np.concatenate(validation),
        cut=np.concatenate(cut),
        train=train,
        distinct=dict(zip(sources, rest, strict=True)),
        left_out=left_out,
        left_out_bytes=left_out_bytes,
    )


class TooShortError(InputError):
    """The text is too short for the held-out part and training, or in too few `documents`: each is held out or trained on."""

    def __init__(self, tokens: int, validation_tokens: int, documents: int | None = None) -> None:
        within, more = (f" in {counted(documents, 'document')}", " or line ends, for more documents") if documents else ("", "")
        super().__init__(
            f"data: the corpus has only {tokens:,} tokens{within}, too few for data.validation_tokens="
            f"{validation_tokens:,} and some training tokens from each source; lower it, or add text{more}"
        )


def _repeat(chosen: np.ndarray, tokens: np.ndarray, wanted: float) -> np.ndarray:
    """Repeat `chosen` until there are `wanted` tokens, to the nearest document."""
    whole, rest = divmod(round(wanted), int(tokens.sum()))
    ends = np.cumsum(tokens, dtype=np.int64)
    more = int(np.searchsorted(ends - tokens // 2, rest))
    return np.concatenate([np.tile(chosen, whole), chosen[:more]])


def repetitive(documents: Documents, order: np.ndarray, share: float) -> np.ndarray:
    """Mask of the documents of `order` that have at least the fraction `share` of their lines in documents before them."""
    assert documents.lines is not None
    rank = np.full(len(documents.digest), -1)
    rank[order] = np.arange(len(order))
    at = np.repeat(rank, documents.line_counts)
    hashes, at = documents.lines[at >= 0], at[at >= 0]
    by_line = np.lexsort((at, hashes))
    hashes, at = hashes[by_line], at[by_line]
    seen = np.zeros(len(hashes), dtype=bool)
    seen[1:] = hashes[1:] == hashes[:-1]  # among equal hashes, the earliest document sorts first
    lines = np.bincount(at, minlength=len(order))
    return (np.bincount(at, weights=seen, minlength=len(order)) >= share * lines) & (lines > 0)
