"""Multiple choice: which of several texts goes on with the one before it? Made from held-out text, or read from a file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sweep.config.training import TaskConfig
from sweep.data import Corpus
from sweep.data.tokenizer import Tokenizer
from sweep.errors import InputError, explained
from sweep.words import counted

DRAWS = 8  # of groups with different continuations
CONTEXTS = ("context", "question")  # the names that a line's text before its choices may have


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a task as token ids. A sequence is an item's context and one of its choices.

    Attributes:
        name: of the task.
        ids: of each sequence.
        scored: how many tokens of each sequence, at its end, are its choice; shape (sequences,).
        bytes: length of each choice, shape (sequences,).
        first: where each item's sequences begin, shape (items,).
        answer: which of its choices is the true one, shape (items,).
    """

    name: str
    ids: tuple[np.ndarray, ...]
    scored: np.ndarray
    bytes: np.ndarray
    first: np.ndarray
    answer: np.ndarray

    @property
    def chance(self) -> float:
        """The accuracy of a guess."""
        return float((1 / np.diff(self.first, append=len(self.ids))).mean())

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (*self.ids, self.scored, self.bytes, self.first, self.answer):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes() + b"|")
        return digest.hexdigest()[:16]


def items_of(name: str, task: TaskConfig, corpus: Corpus, context_length: int) -> Items:
    """The items of a task for models of `context_length` inputs, which sequences that are longer lose at their left.

    Raises:
        InputError: if the held-out text is too short for the task, the corpus has no tokenizer that it needs, or the file or
            one of its lines is wrong.
    """
    field = f"evaluation.tasks.{name}"
    if task.path is not None:
        return _read(name, Path(task.path).expanduser(), f"{field}.path={task.path}", corpus.tokenizer(), context_length)
    if (length := task.context + task.continuation) > context_length + 1:
        raise InputError(
            f"{field}: context={task.context} and continuation={task.continuation} are {length} tokens, but the models read "
            f"data.context_length={context_length} and score one more; ask for fewer"
        )
    return _continuations(name, task, field, corpus)


def check_tasks(named: Mapping[str, TaskConfig]) -> None:
    """Raises InputError if it is not clear where the items of a task are from, or its file is missing."""
    for name, task in named.items():
        if (task.kind is None) == (task.path is None):
            given = "both kind and path" if task.path else "neither kind nor path"
            raise InputError(f"evaluation.tasks.{name} has {given}; give kind=continuation, or path=FILE.jsonl")
        if task.path is not None and not Path(task.path).expanduser().is_file():
            raise InputError(f"evaluation.tasks.{name}.path={task.path} is not a file; name one of JSON lines")


def _continuations(name: str, task: TaskConfig, field: str, corpus: Corpus) -> Items:
    """Pieces of the held-out text that do not overlap and lie each within one document, in groups whose continuations differ.

    The choices of an item are the continuations of its group, and each piece of a group makes an item. So a model that does not
    look at the context gives the same answer to a whole group, and is right exactly as often as by chance, whatever it prefers.
    """
    tokenizer = None if corpus.manifest["tokenizer"] == "none" else corpus.tokenizer()
    tokens, size = np.asarray(corpus.tokens("validation")).astype(np.int64), task.context + task.continuation
    ends = np.flatnonzero(tokens == tokenizer.end_of_document) if tokenizer else np.empty(0, dtype=int)
    bounds = [-1, *ends.tolist(), len(tokens)]
    starts = np.concatenate([np.arange(last + 1, end - size + 1, size) for last, end in pairwise(bounds)])
    pieces = tokens[starts[:, None] + np.arange(size)]
    groups = _groups(pieces[:, task.context :], task.choices, np.random.default_rng(task.seed))
    if not len(groups):
        raise InputError(
            f"{field}: {len(tokens):,} held-out tokens have {counted(len(pieces), 'piece')} of {size} tokens, and no "
            f"choices={task.choices} of them end differently; raise data.validation_tokens, or ask for shorter pieces"
        )
    groups = groups[: max(1, task.items // task.choices)]
    before = pieces[:, : task.context]
    if not task.context:  # a model needs a token to begin with
        if tokenizer is None:
            raise InputError(f"{field}.context=0 begins with the end of a document, which this corpus has not; give 1 or more")
        before = np.full((len(pieces), 1), tokenizer.end_of_document)
    contexts, choices = np.repeat(groups.ravel(), task.choices), np.repeat(groups, task.choices, axis=0).ravel()
    ids = np.hstack([before[contexts], pieces[choices, task.context :]])
    sizes = [tokenizer.count_bytes(each[-task.continuation :]) if tokenizer else task.continuation for each in ids]
    return Items(
        name=name,
        ids=tuple(ids),
        scored=np.full(len(ids), task.continuation),
        bytes=np.maximum(sizes, 1),
        first=np.arange(0, len(ids), task.choices),
        answer=np.tile(np.arange(task.choices), len(groups)),
    )


def _groups(continuations: np.ndarray, choices: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of `continuations`, shape (pieces, tokens), in groups of `choices` different ones, shape (groups, choices), each
    in at most one group. What does not fit is drawn again a few times, and then left out."""
    which = np.unique(continuations, axis=0, return_inverse=True)[1].ravel()
    rest, found = rng.permutation(len(which)), [np.empty((0, choices), dtype=int)]
    for _ in range(DRAWS):
        groups = rest[: len(rest) // choices * choices].reshape(-1, choices)
        differ = (np.diff(np.sort(which[groups], axis=1), axis=1) > 0).all(axis=1)
        found.append(groups[differ])
        rest = rng.permutation(np.concatenate([groups[~differ].ravel(), rest[groups.size :]]))
    return np.concatenate(found)


def _read(name: str, path: Path, given: str, tokenizer: Tokenizer, context_length: int) -> Items:
    """The items of a file of JSON lines. As in lm-evaluation-harness, a blank stands between context and choice, unless there
    is white space, the tokens of a choice are those that it adds to its context's, and its bytes are its own."""
    ids: list[np.ndarray] = []
    scored, sizes, first, answers = [], [], [], []
    with explained(f"{given} cannot be read", "name a file of JSON lines", OSError):
        lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{given}, line {number}"
        context, choices, answer = _parse(line, place)
        before = context.rstrip()
        gaps = [
            "" if not context or (context[-1] + choice[0]).strip() != context[-1] + choice[0] else " " for choice in choices
        ]
        texts = [f"{context}{gap}{choice}" for gap, choice in zip(gaps, choices, strict=True)]
        known, *whole = tokenizer.encode([text.encode() for text in (before, *texts)])
        first.append(len(ids))
        for choice, sequence in zip(choices, whole, strict=True):
            own = max(len(sequence) - len(known), 1)
            if own > context_length:
                raise InputError(f"{place}: a choice has {own:,} tokens, more than data.context_length={context_length:,}")
            sequence = sequence.astype(np.int64)
            ids.append(np.insert(sequence, 0, tokenizer.end_of_document) if own == len(sequence) else sequence)
            scored.append(own)
            sizes.append(len(choice.encode()))
        answers.append(answer)
    if not first:
        raise InputError(f"{given} holds no items; write a line of JSON for each")
    arrays = (np.array(each) for each in (scored, sizes, first, answers))
    return Items(name=name, ids=tuple(ids), **dict(zip(("scored", "bytes", "first", "answer"), arrays, strict=True)))


def _joined(context: str, choice: str) -> str:
    apart = not context or context[-1].isspace() or choice[0].isspace()
    return context + choice if apart else f"{context} {choice}"


def _parse(line: bytes, place: str) -> tuple[str, list[str], int]:
    """The context, the choices and the number of the true one. Raises InputError with the `place` if one of them is wrong."""
    with explained(f"{place} is no JSON", "write one object to a line", (ValueError, RecursionError)):
        row: Any = json.loads(line)
    if not isinstance(row, dict) or not {"choices", "answer"} <= row.keys() or len(row.keys() & set(CONTEXTS)) != 1:
        raise InputError(f'{place} is not as {{"context": "…", "choices": ["…", "…"], "answer": 0}}; context may be question')
    context, choices, answer = row.get("context", row.get("question")), row["choices"], row["answer"]
    if not isinstance(context, str) or not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
        raise InputError(f"{place}: context must be a text, and choices a list of texts")
    if len(choices) < 2:
        raise InputError(f"{place} has {counted(len(choices), 'choice')}; give at least two")
    if not all(each.strip() for each in choices):
        raise InputError(f"{place}: a choice is empty; give each a text")
    if len(set(choices)) < len(choices):
        raise InputError(f"{place} has one choice twice; give each another text")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise InputError(f"{place}: answer={json.dumps(answer)} is no number of a choice, 0 to {len(choices) - 1}")
    return context, choices, answer
