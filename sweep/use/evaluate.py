"""Losses of finished runs on text they were not trained for: named sets, sources of a mixture, positions in the context.

They are computed from the last checkpoint, the model at its horizon, so a set can be chosen after the sweep. A run's losses are
kept in its evaluations.json until the tokens of a set change.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.config import SourceConfig
from sweep.data import Corpus, validation_sequences
from sweep.data.sources import reader_of
from sweep.errors import InputError
from sweep.files import write_sealed
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory
from sweep.store.curves import EVALUATIONS, OWN, evaluated, read_results
from sweep.use.positions import position_blocks

if TYPE_CHECKING:
    import torch

    from models.language_model import LanguageModel

TOKENS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Held-out text as token ids.

    Attributes:
        name: in tables and figures.
        tokens: ids, shape (tokens,).
        bytes_per_token: average length of a token in bytes; None if unknown.
    """

    name: str
    tokens: np.ndarray
    bytes_per_token: float | None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.tokens, dtype=np.uint32).tobytes()).hexdigest()[:16]


def sets_of(corpus: Corpus, named: Mapping[str, SourceConfig], most_tokens: int) -> list[EvaluationSet]:
    """The corpus's held-out part, its sources if it is a mixture, and the first `most_tokens` tokens of each of `named`. Raises
    InputError if a source cannot be read or is empty, or a name is taken."""
    own = corpus.tokens("validation")
    sets = [EvaluationSet(name=OWN, tokens=own, bytes_per_token=corpus.bytes_per_token)]
    sources = corpus.manifest["parts"]["validation"].get("sources", {})
    if len(sources) > 1:  # they lie one after another, in the order of the manifest
        bounds = pairwise(accumulate((source["tokens"] for source in sources.values()), initial=0))
        for (name, source), (start, end) in zip(sources.items(), bounds, strict=True):
            if end > start:
                per_token = source["bytes"] / source["tokens"]
                sets.append(EvaluationSet(name=name, tokens=own[start:end], bytes_per_token=per_token))
    for name, source in named.items():
        if name in (each.name for each in sets):
            raise InputError(f"evaluation.sets.{name}: there is a {name} among the corpus's own parts; choose another name")
        sets.append(_tokenised(name, source, corpus, most_tokens))
    return sets


def check_sets(named: Mapping[str, SourceConfig]) -> None:
    """Open every source. Raises InputError if one cannot be read."""
    for name, source in named.items():
        reader_of(source, f"evaluation.sets.{name}").look_into()


def _tokenised(name: str, source: SourceConfig, corpus: Corpus, most_tokens: int) -> EvaluationSet:
    tokenizer = corpus.tokenizer()
    parts: list[np.ndarray] = []
    tokens = size = 0
    for document in reader_of(source, f"evaluation.sets.{name}"):
        (ids,) = tokenizer.encode([document])
        parts.append(np.append(ids, tokenizer.end_of_document).astype(np.uint32))
        tokens, size = tokens + len(parts[-1]), size + len(document)
        if tokens > most_tokens:  # a sequence of T inputs needs T + 1 tokens
            break
    if not parts:
        raise InputError(f"evaluation.sets.{name} holds no text; name other paths")
    flat = np.concatenate(parts)
    return EvaluationSet(name=name, tokens=flat[: most_tokens + 1], bytes_per_token=size / len(flat))


def evaluate(run: RunConfig, directory: RunDirectory, sets: list[EvaluationSet], device: str) -> dict[str, Any]:
    """Losses of a finished run on `sets`, by name, from its evaluations.json or computed now.

    Each has "loss" and "loss_se" in nats per token, "bits_per_byte" if that is known, "tokens", and "fingerprint"; the first,
    the corpus's own, also "by_position": the mean loss at each of the T positions, and "blocks": means over blocks of sequences
    and bins of positions, as `sweep.fit.kaplan.position` takes them. What `sweep.use.along` has measured is under `ALONG`.

    Raises:
        InputError: if the run is not done, a set has fewer than two sequences, the checkpoint is gone, or the file is damaged.
    """
    read_results(directory)
    known = evaluated(directory)
    missing = [each for each in sets if known.get(each.name, {}).get("fingerprint") != each.fingerprint]
    if missing:
        model = loaded(run, last_weights(directory, run), device)
        for each in missing:
            known[each.name] = measure(model, run, each, device)
        write_sealed(directory.path / EVALUATIONS, known)
    return {each.name: known[each.name] for each in sets}


def loaded(run: RunConfig, weights: "dict[str, torch.Tensor]", device: str) -> "LanguageModel":
    """The model of `run` with these weights."""
    from sweep.train.engine.autograd import language_model

    model = language_model(run).to(device)
    model.load_state_dict(weights)
    return model


def measure(model: "LanguageModel", run: RunConfig, what: EvaluationSet, device: str) -> dict[str, Any]:
    """Losses of `model` on one set, as `evaluate` returns them. Raises InputError if it has fewer than two sequences."""
    import torch

    from sweep.train.engine.autograd import autocast, to_device
    from sweep.train.objective import as_text, text_losses

    T = run.model.context_length
    if len(what.tokens) <= 2 * T:
        raise InputError(
            f"evaluation.sets.{what.name}: {len(what.tokens):,} tokens are not two sequences of data.context_length={T:,}; "
            "bring more text"
        )
    sequences = as_text(run, validation_sequences(what.tokens, T))
    at_once = max(1, TOKENS_AT_ONCE // T)
    losses = []
    with torch.no_grad(), autocast(run.precision, device):
        for start in range(0, len(sequences), at_once):
            ids = to_device(sequences[start : start + at_once], device)
            losses.append(text_losses(model, ids).double().cpu())
    by_sequence = torch.cat(losses)
    means = by_sequence.mean(dim=1)
    loss = means.mean().item()
    found: dict[str, Any] = {
        "loss": loss,
        "loss_se": means.std().item() / math.sqrt(len(means)),
        "tokens": by_sequence.numel(),
        "fingerprint": what.fingerprint,
    }
    if what.bytes_per_token:
        found["bits_per_byte"] = loss / (math.log(2) * what.bytes_per_token)
    if what.name == OWN:
        found["by_position"] = by_sequence.mean(dim=0).tolist()
        found["blocks"] = position_blocks(by_sequence.numpy(), sequences if run.causal else None).round(5).tolist()
    return found


def last_weights(directory: RunDirectory, run: RunConfig) -> "dict[str, torch.Tensor]":
    """The weights after the last step of a finished run, by name. Raises InputError if no sound checkpoint holds them."""
    from sweep.train.checkpoint import load_checkpoint

    def problem_of(state: dict[str, Any]) -> str:
        return "" if state["step"] == run.steps else f"is of step {state['step']}, not of the last, {run.steps}"

    if (checkpoint := load_checkpoint(directory.checkpoints, problem_of=problem_of)) is None:
        raise InputError(f"{directory.checkpoints} holds no checkpoint; delete {directory.path} to train the run again")
    return checkpoint["model"]
