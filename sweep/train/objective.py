"""What a run learns from, and what it is judged by: batches and held-out sequences of its objective, and their losses.

A batch is a tensor of ids, shape (B, T + 1), for the next token; or of examples, shape (B, ROWS, T), as
`sweep.data.infilling.example` has them.
"""

import numpy as np
from torch import Tensor

from models.language_model import LanguageModel, Layout
from sweep.data import Corpus, TrainingSequences, validation_sequences
from sweep.data.infilling import Ids, InfillingSequences, as_language_model, held_out_blanks, sentence_ends
from sweep.errors import InputError
from sweep.plan.run import RunConfig

Batches = TrainingSequences | InfillingSequences


def training_batches(run: RunConfig, corpus: Corpus) -> Batches:
    """The batches of `run`. Raises InputError if there is too little text, or no sentence in it where the run wants some."""
    plain = TrainingSequences(
        corpus.tokens("train"),
        context_length=run.model.context_length,
        batch_size=run.batch_size,
        seed=run.seed,
        unique_tokens=run.unique_tokens,
    )
    if run.causal:
        return plain
    ends = np.array([], dtype=np.int64)
    if run.objective.sentence:
        ends = sentence_ends(corpus.tokenizer().decode, corpus.vocab_size)
        if not np.isin(corpus.tokens("validation"), ends).any():
            raise InputError(
                f"objective.sentence={run.objective.sentence:g}: there are no sentences, for nothing in the text ends "
                "with . ? ! or a new line; set it to 0"
            )
    return InfillingSequences(plain, run.objective, Ids.of(run), ends)


def held_out(run: RunConfig, corpus: Corpus) -> dict[str, np.ndarray]:
    """The held-out sequences by the name of their loss: "val_loss" is that of a language model whatever the objective, so that
    it stands beside that of other runs; "infilling_loss" that of blanks, which are the same for all runs."""
    plain = validation_sequences(corpus.tokens("validation"), run.model.context_length)
    if run.causal:
        return {"val_loss": plain}
    return {"val_loss": as_text(run, plain), "infilling_loss": held_out_blanks(plain, run.objective, Ids.of(run))}


def as_text(run: RunConfig, sequences: np.ndarray) -> np.ndarray:
    """Sequences of text, shape (n, T + 1), as `run` reads them for the loss of a language model."""
    return sequences if run.causal else as_language_model(sequences, Ids.of(run))


def batch_loss(model: LanguageModel, batch: Tensor, key_B: Tensor | None = None) -> Tensor:
    """The mean loss of a batch, in nats per token; of examples the mean over sequences of the mean over what counts."""
    if batch.ndim == 2:
        return model.loss(batch[:, :-1], batch[:, 1:], key_B=key_B)
    tokens_BT, targets_BT, *places, counts_BT = batch.unbind(1)
    share_BT = counts_BT / counts_BT.sum(dim=1, keepdim=True) / len(batch)
    return model.loss(tokens_BT, targets_BT, key_B=key_B, layout=Layout(*places), share_BT=share_BT)


def token_losses(model: LanguageModel, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each token of a batch, shape (B, T), and 1 where it counts, else 0."""
    if batch.ndim == 2:
        losses_BT = model.loss(batch[:, :-1], batch[:, 1:], reduction="none")
        return losses_BT, losses_BT.new_ones(losses_BT.shape)
    tokens_BT, targets_BT, *places, counts_BT = batch.unbind(1)
    losses_BT = model.loss(tokens_BT, targets_BT, reduction="none", layout=Layout(*places))
    return losses_BT, counts_BT.to(losses_BT.dtype)


def text_losses(model: LanguageModel, batch: Tensor) -> Tensor:
    """The losses of a batch of text, as `as_text` makes it, at each place of the context: shape (B, T), or (B, T - 2) of a
    model of blanks."""
    losses_BT, counts_BT = token_losses(model, batch)
    return losses_BT[:, counts_BT[0] > 0]


def sequence_means(model: LanguageModel, batch: Tensor) -> Tensor:
    """The mean loss of each sequence of a batch, shape (B,)."""
    losses_BT, counts_BT = token_losses(model, batch)
    if batch.ndim == 2:
        return losses_BT.mean(dim=1)
    return (losses_BT * counts_BT).sum(dim=1) / counts_BT.sum(dim=1)
