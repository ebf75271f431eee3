"""Scores of finished runs on multiple choice: the choice with the highest likelihood per byte is the model's answer.

They are computed from the last checkpoint, so a task can be chosen after the sweep. A run's scores are kept in its tasks.json
until the items of a task change.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import InputError
from sweep.files import write_sealed
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory
from sweep.store.curves import TASKS, read_results, scored
from sweep.use.evaluate import TOKENS_AT_ONCE, last_weights, loaded
from sweep.use.items import Items

UNREAD = 2  # tokens at the end of a text that a model of blanks does not predict

if TYPE_CHECKING:
    from models.language_model import LanguageModel


def score_tasks(run: RunConfig, directory: RunDirectory, tasks: Sequence[Items], device: str) -> dict[str, Any]:
    """Scores of a finished run on `tasks`, by name, from its tasks.json or computed now.

    Each has "accuracy", "items", "chance" (the accuracy of a guess), "fingerprint", and "right": 1 for each item that was
    answered right, 0 for others, and 1/k for one where k choices, the true one among them, are equally likely.

    Raises:
        InputError: if the run is not done, the checkpoint is gone, or the file is damaged.
    """
    read_results(directory)
    known = scored(directory)
    missing = [each for each in tasks if known.get(each.name, {}).get("fingerprint") != each.fingerprint]
    if missing:
        model = loaded(run, last_weights(directory, run), device)
        for each in missing:
            right = answers(likelihoods(model, run, each, device), each)
            known[each.name] = {
                "fingerprint": each.fingerprint,
                "accuracy": float(right.mean()),
                "items": len(right),
                "chance": each.chance,
                "right": right.tolist(),
            }
        write_sealed(directory.path / TASKS, known)
    return {each.name: known[each.name] for each in tasks}


def answers(nats: np.ndarray, items: Items) -> np.ndarray:
    """What each item counts, 0 to 1, shape (items,), by the log-likelihoods of the choices in nats, shape (sequences,)."""
    per_byte = nats / items.bytes
    best = np.maximum.reduceat(per_byte, items.first)
    won = per_byte == np.repeat(best, np.diff(items.first, append=len(nats)))
    return won[items.first + items.answer] / np.add.reduceat(won, items.first)


def likelihoods(model: "LanguageModel", run: RunConfig, items: Items, device: str) -> np.ndarray:
    """The log-likelihood of each choice after its context, in nats, shape (sequences,). A sequence that is longer than the
    model's context loses its first tokens; a shorter one is followed by tokens that no scored one sees."""
    import torch

    from sweep.train.engine.autograd import autocast, to_device
    from sweep.train.objective import as_text, text_losses

    unread = 0 if run.causal else UNREAD
    ids = [each[-run.model.context_length - 1 + unread :] for each in items.ids]
    lengths = np.array([len(each) for each in ids])
    order, nats = np.argsort(-lengths, kind="stable"), np.empty(len(ids))
    at_once = max(1, TOKENS_AT_ONCE // int(lengths.max()))
    with torch.no_grad(), autocast(run.precision, device):
        for start in range(0, len(ids), at_once):
            rows = order[start : start + at_once]
            ids_RT = np.zeros((len(rows), lengths[rows[0]] + unread), dtype=np.int64)
            for row, sequence in zip(ids_RT, rows, strict=True):
                row[: lengths[sequence]] = ids[sequence]
            losses = text_losses(model, to_device(as_text(run, ids_RT), device)).double().cpu().numpy()
            place = np.arange(1, losses.shape[1] + 1)  # of each target
            ends = lengths[rows, None]
            nats[rows] = -(losses * ((place >= ends - items.scored[rows, None]) & (place < ends))).sum(axis=1)
    if not np.isfinite(nats).all():
        raise InputError(
            f"evaluation.tasks.{items.name}: run {run.run_id} gives a choice no likelihood; its weights are damaged"
        )
    return nats
