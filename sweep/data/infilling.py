"""Autoregressive blank infilling (GLM, Du et al. 2021, arXiv 2103.10360, section 2.1): spans are cut out of a text and
predicted.

Part A is the text with a MASK in the place of each span. Part B has the spans in random order, each after a START; the targets
are its tokens and an END. A sees all of itself; each token of B sees A and what is before it in B. Every token has two
positions: its place in A, which for a token of B is that of its MASK, and its place within the span, 0 in A and from 1 on in B.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sweep.data.batches import TrainingSequences
from sweep.plan.run import SPECIAL_IDS, ObjectiveSettings, RunConfig

# Of the rows of an example, shape (ROWS, T): see `Example`.
ROWS = ("tokens", "targets", "positions", "within", "seen", "counts")
BLANK_SEED = 2  # beside a run's seed and a step
HELD_OUT_SEED = 0xB1A2  # of the spans of held-out text: the same for all runs

Spans = list[tuple[int, int]]  # of a text: start and end of each


@dataclass(frozen=True, kw_only=True)
class Ids:
    """The ids of an objective, after the `vocabulary` of the tokenizer."""

    vocabulary: int

    @classmethod
    def of(cls, run: RunConfig) -> "Ids":
        return cls(vocabulary=run.model.vocab_size - SPECIAL_IDS)

    @property
    def mask(self) -> int:
        return self.vocabulary

    @property
    def start(self) -> int:
        return self.vocabulary + 1

    @property
    def end(self) -> int:
        return self.vocabulary + 2


def example(text: np.ndarray, spans: Spans, ids: Ids, T: int) -> np.ndarray:
    """A text with `spans` cut out, in the order in which they stand in part B, shape (ROWS, T), int64.

    Rows: the input tokens; their targets; positions in A; places within spans; how many tokens, from the first on, each one
    sees; and 1 where the target counts, in part B, else 0. What is left of T is padding that nobody sees and nothing counts.
    Raises ValueError if it does not fit in T, or spans overlap.
    """
    ordered = sorted(spans)
    if any(end > start for (_, end), (start, _) in pairwise(ordered)):
        raise ValueError(f"spans overlap: {spans}")
    part_a: list[int] = []
    place, at = {}, 0
    for start, end in ordered:
        part_a += text[at:start].tolist()
        place[start, end] = len(part_a)
        part_a.append(ids.mask)
        at = end
    part_a += text[at:].tolist()
    rows = np.zeros((len(ROWS), T), dtype=np.int64)
    length = len(part_a) + sum(end - start + 1 for start, end in spans)
    if length > T:
        raise ValueError(f"{length} tokens do not fit in {T}")
    tokens, targets, positions, within, seen, counts = rows
    n = len(part_a)
    tokens[:n], positions[:n], seen[:n] = part_a, np.arange(n), n
    for start, end in spans:
        stop = n + end - start + 1
        tokens[n:stop] = [ids.start, *text[start:end].tolist()]
        targets[n:stop] = [*text[start:end].tolist(), ids.end]
        positions[n:stop], within[n:stop] = place[start, end], np.arange(1, end - start + 2)
        seen[n:stop], counts[n:stop] = np.arange(n + 1, stop + 1), 1
        n = stop
    seen[n:] = 1  # padding sees one token, so that its attention is defined
    return rows


def token_spans(rng: np.random.Generator, settings: ObjectiveSettings, T: int) -> tuple[int, Spans]:
    """The length of a text that fits in T with its blanks, and spans of it: lengths from Poisson(`mean_span`), but not zero,
    until they are the share `masked` of the text; the last is cut to that. They lie at random places, and in random order."""
    lengths = np.maximum(rng.poisson(settings.mean_span, T), 1)
    for L in range(T - 2, 1, -1):
        masked = max(1, round(settings.masked * L))
        n = int(np.searchsorted(np.cumsum(lengths), masked)) + 1
        if L + 2 * n <= T:
            break
    chosen = lengths[:n].copy()
    chosen[-1] -= chosen.sum() - masked
    # Which of the visible tokens and blanks, in a row, are the blanks.
    slots = np.sort(rng.choice(L - masked + n, n, replace=False))
    starts = slots + np.concatenate([[0], np.cumsum(chosen - 1)[:-1]])
    spans = [(int(start), int(start + length)) for start, length in zip(starts, chosen, strict=True)]
    return L, [spans[i] for i in rng.permutation(n)]


def document_span(rng: np.random.Generator, T: int) -> tuple[int, Spans]:
    """The same for one span, of 50 to 100 % of the text."""
    L = T - 2
    length = int(rng.integers((L + 1) // 2, L + 1))
    start = int(rng.integers(0, L - length + 1))
    return L, [(start, start + length)]


def sentence_spans(
    rng: np.random.Generator, settings: ObjectiveSettings, text: np.ndarray, ends: np.ndarray, T: int
) -> tuple[int, Spans]:
    """The same for whole sentences, in random order, until they are the share `masked` of the text. `ends` are the ids that end
    a sentence. What is before the first one, or after the last, counts as a sentence."""
    keys = rng.random(T)
    for L in range(T - 2, 1, -1):
        cuts = np.unique([0, *(np.flatnonzero(np.isin(text[:L], ends)) + 1), L])
        sentences = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
        order = np.argsort(keys[: len(sentences)])
        lengths = np.array([sentences[i][1] - sentences[i][0] for i in order])
        n = int(np.searchsorted(np.cumsum(lengths), settings.masked * L)) + 1
        if L + 2 * n <= T:
            break
    return L, [sentences[i] for i in order[:n]]


class InfillingSequences:
    """Batches of examples: those of `plain`, cut by the objective. Step k's is a function of (ids, seed, k).

    Args:
        plain: the sequences.
        settings: of the objective.
        ids: of MASK, START and END.
        ends: ids that end a sentence, shape (ends,).
    """

    def __init__(self, plain: TrainingSequences, settings: ObjectiveSettings, ids: Ids, ends: np.ndarray) -> None:
        self.plain, self.settings, self.ids, self.ends = plain, settings, ids, ends

    def batch(self, step: int) -> np.ndarray:
        """The examples of step `step`, shape (B, ROWS, T), int64."""
        rng = np.random.default_rng((self.plain.seed, step, BLANK_SEED))
        return cut(self.plain.batch(step), rng, self.settings, self.ids, self.ends)


def cut(sequences: np.ndarray, rng: np.random.Generator, settings: ObjectiveSettings, ids: Ids, ends: np.ndarray) -> np.ndarray:
    """An example of each of `sequences`, shape (n, T + 1), of the level that is drawn for it: document, sentence, or tokens."""
    T = sequences.shape[1] - 1
    levels = rng.random(len(sequences))
    made = []
    for text, level in zip(sequences, levels.tolist(), strict=True):
        if level < settings.document:
            L, spans = document_span(rng, T)
        elif level < settings.document + settings.sentence:
            L, spans = sentence_spans(rng, settings, text, ends, T)
        else:
            L, spans = token_spans(rng, settings, T)
        made.append(example(text[:L], spans, ids, T))
    return np.stack(made)


def held_out_blanks(sequences: np.ndarray, settings: ObjectiveSettings, ids: Ids) -> np.ndarray:
    """Held-out sequences, shape (n, T + 1), as blanks of the token level, whatever the run's own mixture: shape (n, ROWS,
    T)."""
    only_tokens = ObjectiveSettings(kind=settings.kind, masked=settings.masked, mean_span=settings.mean_span, document=0)
    return cut(sequences, np.random.default_rng(HELD_OUT_SEED), only_tokens, ids, np.array([]))


def as_language_model(sequences: np.ndarray, ids: Ids) -> np.ndarray:
    """Sequences, shape (n, T + 1), as one span that begins after the first token, which makes the objective a language model:
    shape (n, ROWS, T). Part A takes the place of two of the T targets, the last ones. END is not predicted."""
    T = sequences.shape[1] - 1
    made = np.stack([example(text[: T - 1], [(1, T - 1)], ids, T + 1) for text in sequences])
    return made[:, :, :T]  # the last target is END


def sentence_ends(decode: Callable[[Sequence[int]], str], vocabulary: int) -> np.ndarray:
    """The ids whose text ends a sentence: with a full stop, a question or exclamation mark, or a new line."""
    return np.array([i for i in range(vocabulary) if decode([i]).rstrip(" ").endswith((".", "?", "!", "\n"))], dtype=np.int64)
