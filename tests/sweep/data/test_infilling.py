"""Blank infilling against the paper's example, and against a literal reference of its masks and positions."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models import ModelConfig
from models.blocks import visible
from models.language_model import LanguageModel, Layout
from sweep.data import TrainingSequences
from sweep.data.infilling import (
    ROWS,
    Ids,
    InfillingSequences,
    as_language_model,
    cut,
    document_span,
    example,
    held_out_blanks,
    sentence_ends,
    sentence_spans,
    token_spans,
)
from sweep.plan.run import ObjectiveSettings
from sweep.train.objective import batch_loss, sequence_means

IDS = Ids(vocabulary=10)
M, S, E = IDS.mask, IDS.start, IDS.end
SETTINGS = ObjectiveSettings(kind="blank_infilling")


def named(rows: np.ndarray) -> dict[str, list[int]]:
    return {name: row.tolist() for name, row in zip(ROWS, rows, strict=True)}


def test_the_example_of_figure_2() -> None:
    """x1 … x6 with the spans [x3] and [x5, x6], the latter first in part B (Du et al. 2021, Fig. 2, from 1 on)."""
    text = np.array([1, 2, 3, 4, 5, 6])
    found = named(example(text, [(4, 6), (2, 3)], IDS, 11))
    assert found["tokens"] == [1, 2, M, 4, M, S, 5, 6, S, 3, 0]
    assert found["targets"] == [0, 0, 0, 0, 0, 5, 6, E, 3, E, 0]
    assert found["positions"] == [0, 1, 2, 3, 4, 4, 4, 4, 2, 2, 0]
    assert found["within"] == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2, 0]
    assert found["counts"] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0]
    sees = visible(torch.tensor([found["seen"]]))[0, 0].int().tolist()
    a, b = [1] * 5 + [0] * 6, lambda k: [1] * k + [0] * (11 - k)
    assert sees == [a, a, a, a, a, b(6), b(7), b(8), b(9), b(10), b(1)]


def reference(text: list[int], spans: list[tuple[int, int]]) -> tuple[list[tuple], list[list[bool]]]:
    """(token, target, position, place in the span, counts) of each token, and who sees whom, as the paper's text says it."""
    of_a: list[tuple] = []
    mask_of = {}
    for i, token in enumerate(text):
        inside = [span for span in spans if span[0] <= i < span[1]]
        if not inside:
            of_a.append((token, None, len(of_a), 0, "A"))
        elif i == inside[0][0]:
            mask_of[inside[0]] = len(of_a)
            of_a.append((M, None, len(of_a), 0, "A"))
    of_b: list[tuple] = []
    for span in spans:
        words = text[span[0] : span[1]]
        of_b += [
            (token, target, mask_of[span], place, "B")
            for place, (token, target) in enumerate(zip([S, *words], [*words, E], strict=True), start=1)
        ]
    everything = of_a + of_b
    sees = [
        [them[4] == "A" or (me[4] == "B" and j <= i) for j, them in enumerate(everything)] for i, me in enumerate(everything)
    ]
    return everything, sees


@pytest.mark.parametrize("seed", range(40))
def test_masks_and_positions_are_those_of_a_literal_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = int(rng.integers(8, 90))
    text = rng.integers(0, 10, T)
    ends = np.array([3])
    L, spans = [
        token_spans(rng, SETTINGS, T),
        document_span(rng, T),
        sentence_spans(rng, SETTINGS, text, ends, T),
    ][seed % 3]
    rows = example(text[:L], spans, IDS, T)
    expected, sees = reference(text[:L].tolist(), spans)
    n = len(expected)
    assert n <= T
    found = named(rows)
    for i, (token, target, position, place, part) in enumerate(expected):
        assert (found["tokens"][i], found["positions"][i], found["within"][i]) == (token, position, place)
        assert found["counts"][i] == (part == "B")
        assert target is None or found["targets"][i] == target
    assert visible(torch.tensor(rows[4:5]))[0, 0, :n, :n].tolist() == sees
    assert not any(found["counts"][n:])
    assert n >= T - 3  # little is wasted: two spans more would not fit


def test_spans_are_as_long_and_as_many_as_the_paper_says() -> None:
    rng, T = np.random.default_rng(0), 256
    lengths, shares, first = [], [], []
    for _ in range(2000):
        L, spans = token_spans(rng, SETTINGS, T)
        lengths += [end - start for start, end in spans[:1]]  # the last one drawn is cut; a random one seldom
        shares.append(sum(end - start for start, end in spans) / L)
        first.append(spans[0][0] / L)
        ordered = sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(ordered))
        assert ordered[0][0] >= 0
        assert ordered[-1][1] <= L
    assert np.mean(shares) == pytest.approx(0.15, abs=0.002)
    assert np.mean(lengths) == pytest.approx(3 + np.exp(-3), rel=0.05)  # of Poisson(3), where a span of none has one
    assert np.mean(first) == pytest.approx(0.5, abs=0.02)  # in random order

    whole = [spans[0][1] - spans[0][0] for L, spans in (document_span(rng, T) for _ in range(2000))]
    assert min(whole) >= 127
    assert max(whole) == 254
    assert np.mean(whole) == pytest.approx(0.75 * 254, rel=0.02)


def test_sentences_are_whole() -> None:
    text = np.tile([1, 2, 3, 7, 4, 5, 6, 7, 8, 7], 6)
    for seed in range(20):
        L, spans = sentence_spans(np.random.default_rng(seed), SETTINGS, text, np.array([7]), 60)
        for start, end in spans:
            assert start == 0 or text[start - 1] == 7
            assert end == L or text[end - 1] == 7
        masked = [end - start for start, end in spans]
        assert sum(masked) >= 0.15 * L > sum(masked[:-1])


def test_which_ids_end_a_sentence() -> None:
    assert sentence_ends(lambda ids: "a.! \n?x"[ids[0]], 7).tolist() == [1, 2, 4, 5]
    assert sentence_ends(lambda ids: ["word. ", "end.x"][ids[0]], 2).tolist() == [0]


def test_a_batch_is_a_function_of_ids_seed_and_step() -> None:
    tokens = np.random.default_rng(0).integers(0, 10, 5000).astype(np.uint16)
    settings = ObjectiveSettings(kind="blank_infilling", document=0.4)

    def make(seed: int) -> InfillingSequences:
        plain = TrainingSequences(tokens, context_length=32, batch_size=6, seed=seed)
        return InfillingSequences(plain, settings, IDS, np.array([3]))

    first, again = make(0), make(0)
    first.batch(0)
    assert np.array_equal(first.batch(7), again.batch(7))
    assert not np.array_equal(first.batch(7), first.batch(8))
    assert not np.array_equal(first.batch(7), make(1).batch(7))
    assert first.batch(7).shape == (6, len(ROWS), 32)
    targets = np.concatenate([first.batch(k)[:, 5].sum(axis=1) for k in range(200)])
    assert np.mean(targets > 15) == pytest.approx(0.4, abs=0.05)  # most of a document is cut out, and little of others


def test_held_out_blanks_are_the_same_for_all_runs() -> None:
    text = np.random.default_rng(0).integers(0, 10, (5, 33))
    mixed = ObjectiveSettings(kind="blank_infilling", document=0.9, sentence=0.1)
    assert np.array_equal(held_out_blanks(text, SETTINGS, IDS), held_out_blanks(text, mixed, IDS))


MODEL = ModelConfig(vocab_size=13, d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=40, context_length=32, position_ids=2)


@pytest.mark.parametrize("position", ["rope", "learned", "none"])
def test_as_a_language_model_no_target_is_seen_before_it_is_predicted(position: str) -> None:
    """The loss of target k depends on the tokens before it, on itself, and on none after it."""
    from dataclasses import replace

    model = LanguageModel(replace(MODEL, position=position))
    model.initialise(0)
    text = np.random.default_rng(1).integers(0, 10, (1, 33))

    def losses(ids: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(as_language_model(ids, IDS))
        tokens, targets, positions, within, seen, counts = rows.unbind(1)
        each = model.loss(tokens, targets, "none", layout=Layout(positions, within, seen))
        assert targets[counts > 0].tolist() == ids[0, 1:31].tolist()
        return each[counts > 0]

    before = losses(text)
    for k in (1, 13, 30):
        changed = text.copy()
        changed[0, k] = (changed[0, k] + 1) % 10
        moved = (losses(changed) - before).abs() > 1e-6
        assert not moved[: k - 1].any()
        assert moved[k - 1]


def test_the_loss_is_the_mean_over_sequences_and_does_not_see_its_targets() -> None:
    model = LanguageModel(MODEL)
    model.initialise(0)
    text = np.random.default_rng(2).integers(0, 10, (4, 33))
    batch = torch.from_numpy(cut(text, np.random.default_rng(0), SETTINGS, IDS, np.array([])))
    whole = batch_loss(model, batch)
    assert whole.item() == pytest.approx(sequence_means(model, batch).mean().item(), rel=1e-6)
    halves = [batch_loss(model, half).item() for half in batch.split(2)]
    assert whole.item() == pytest.approx(np.mean(halves), rel=1e-6)  # however it is cut into micro-batches
    other = batch.clone()
    other[:, 1] = torch.where(batch[:, 5] > 0, batch[:, 1], 9)  # what does not count
    assert batch_loss(model, other).item() == whole.item()


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="10 tokens do not fit in 8"):
        example(np.arange(6), [(4, 6), (2, 3)], IDS, 8)
    with pytest.raises(ValueError, match="spans overlap"):
        example(np.arange(6), [(1, 4), (3, 5)], IDS, 20)
