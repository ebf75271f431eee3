"""Multiple choice: the items, the likelihoods of their choices, and the scores of finished runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.language_model import LanguageModel, Layout
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.config import CorpusSpec
from sweep.config.training import TaskConfig
from sweep.data import Corpus, CorpusRecipe
from sweep.data.infilling import Ids, example
from sweep.data.tokenizer import ByteTokenizer, train_bpe
from sweep.errors import InputError
from sweep.plan.run import ObjectiveSettings, RunConfig
from sweep.store import Store
from sweep.store.curves import scored
from sweep.train.loop import train
from sweep.use.items import Items, check_tasks, items_of
from sweep.use.tasks import answers, likelihoods, score_tasks

T = 32
NEXT = TaskConfig(kind="continuation", context=12, continuation=4, items=50)
GOOD = {"context": "ab", "choices": ["c", "de"], "answer": 1}


def written(path: Path, *rows: Any) -> TaskConfig:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return TaskConfig(path=str(path))


@pytest.fixture
def documents(tmp_path: Path) -> Corpus:
    """Held-out text of several documents without any repetition."""
    rng = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_bytes(bytes(rng.integers(33, 126, size=150).astype(np.uint8)))
    spec = CorpusSpec(source="text", paths=[str(tmp_path)], suffixes=[".txt"], validation_tokens=2000)
    return CorpusRecipe.read(spec).build(tmp_path / "corpora")


def test_the_true_choice_goes_on_with_the_text_and_the_others_are_from_elsewhere(documents: Corpus) -> None:
    items = items_of("next", NEXT, documents, T)
    held_out = bytes(np.where((tokens := documents.tokens("validation")) < 256, tokens, 0).astype(np.uint8))
    starts = []
    for first, answer in zip(items.first, items.answer, strict=True):
        choices = [bytes(each.astype(np.uint8)) for each in items.ids[first : first + 4]]
        assert len({each[:12] for each in choices}) == 1
        assert len({each[12:] for each in choices}) == 4
        assert all(each[12:] in held_out and 0 not in each for each in choices)  # within one document
        starts.append(held_out.index(choices[answer]))
    assert (np.diff(np.sort(starts)) >= 16).all()  # no text is in two items
    assert items.answer.tolist() == [0, 1, 2, 3] * 12
    assert len(items.first) == 48  # whole groups, of at most 50
    assert items.chance == 0.25
    assert set(items.scored) == set(items.bytes) == {4}


def test_items_follow_from_the_text_and_the_seed(corpus: Corpus, documents: Corpus) -> None:
    known = items_of("next", NEXT, corpus, T).fingerprint
    assert items_of("next", NEXT, corpus, T).fingerprint == known
    assert items_of("next", replace(NEXT, seed=1), corpus, T).fingerprint != known
    assert items_of("next", NEXT, documents, T).fingerprint != known


def test_a_task_without_context_begins_with_the_end_of_a_document(corpus: Corpus) -> None:
    items = items_of("blind", replace(NEXT, context=0, continuation=1, items=2000), corpus, T)
    assert {len(each) for each in items.ids} == {2}
    assert {int(each[0]) for each in items.ids} == {ByteTokenizer.end_of_document}
    texts = [each.tobytes() for each in items.ids]  # of a text that repeats itself
    assert {len(set(texts[first : first + 4])) for first in items.first} == {4}


def test_the_items_of_a_file(corpus: Corpus, tmp_path: Path) -> None:
    rows = (
        GOOD,
        "",
        {"question": "a ", "choices": ["é", "\nb", "c"], "answer": 0},
        {"context": "", "choices": ["x", "yz"], "answer": 0},
    )
    items = items_of("mine", written(tmp_path / "mine.jsonl", *rows), corpus, T)
    texts = [corpus.tokenizer().decode(each.tolist()) for each in items.ids]
    assert texts == ["ab c", "ab de", "a é", "a \nb", "a c", "x", "yz"]
    assert items.scored.tolist() == [2, 3, 3, 3, 2, 1, 2]  # what a choice adds to its context, the blank included
    assert items.bytes.tolist() == [1, 2, 2, 2, 1, 1, 2]  # its own bytes
    assert items.first.tolist() == [0, 2, 5]
    assert items.answer.tolist() == [1, 0, 0]
    assert items.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert int(items.ids[5][0]) == ByteTokenizer.end_of_document  # something to begin with


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is no JSON"),
        ([1], "line 2 is not as"),
        ({"context": "a", "choices": ["b", "c"]}, "line 2 is not as"),
        (GOOD | {"question": "b"}, "line 2 is not as"),
        (GOOD | {"context": 3}, "line 2: context must be a text"),
        (GOOD | {"choices": "cd"}, "line 2: context must be a text, and choices a list"),
        (GOOD | {"choices": ["c"], "answer": 0}, "line 2 has 1 choice; give at least two"),
        (GOOD | {"choices": ["c", " "]}, "line 2: a choice is empty"),
        (GOOD | {"choices": ["c", "c"]}, "line 2 has one choice twice"),
        (GOOD | {"answer": 2}, "line 2: answer=2 is no number of a choice, 0 to 1"),
        (GOOD | {"answer": True}, "line 2: answer=true is no number"),
        (GOOD | {"choices": ["c", "d" * T]}, "line 2: a choice has 33 tokens, more than data.context_length=32"),
    ],
)
def test_bad_lines(corpus: Corpus, tmp_path: Path, row: Any, message: str) -> None:
    task = written(tmp_path / "mine.jsonl", GOOD, row)
    with pytest.raises(InputError, match=f"evaluation.tasks.mine.path=.*mine.jsonl, {message}") as error:
        items_of("mine", task, corpus, T)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskConfig(), "mine has neither kind nor path"),
        (TaskConfig(kind="continuation", path="x"), "mine has both kind and path"),
        (TaskConfig(path="/nowhere.jsonl"), "path=/nowhere.jsonl is not a file"),
        (replace(NEXT, context=30), "context=30 and continuation=4 are 34 tokens"),
        (
            replace(NEXT, context=0, choices=5000),
            r"pieces of 4 tokens, and no choices=5000 of them end differently",
        ),
    ],
)
def test_bad_tasks(corpus: Corpus, task: TaskConfig, message: str) -> None:
    def asked() -> None:
        check_tasks({"mine": task})
        items_of("mine", task, corpus, T)

    with pytest.raises(InputError, match=message):
        asked()


def test_an_empty_file(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no items"):
        items_of("mine", written(tmp_path / "mine.jsonl", ""), corpus, T)


def some_items(lengths: list[int], scored: list[int], **changes: Any) -> Items:
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(256, size=length) for length in lengths)
    first = np.arange(0, len(ids), 2)
    fields = {"bytes": np.array(scored), "answer": np.zeros(len(first), dtype=int)} | changes
    return Items(name="some", ids=ids, scored=np.array(scored), first=first, **fields)


def test_likelihoods_are_those_of_each_choice_alone(tiny_run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.use.tasks.TOKENS_AT_ONCE", 80)  # several batches
    model = LanguageModel(tiny_run.model)
    model.initialise(0)
    items = some_items([9, 30, 33, 50, 2, 20], [3, 11, 32, 20, 1, 19])
    expected = []
    for ids, scored_ in zip(items.ids, items.scored, strict=True):
        sequence = torch.from_numpy(ids[-33:])[None]  # 32 inputs and one more target
        log_p = torch.log_softmax(model(sequence[:, :-1])[0], dim=-1)
        expected.append(
            sum(log_p[place - 1, sequence[0, place]].item() for place in range(len(sequence[0]) - scored_, len(sequence[0])))
        )
    np.testing.assert_allclose(likelihoods(model, tiny_run, items, "cpu"), expected, rtol=1e-5)


def test_likelihoods_of_a_model_that_fills_blanks(tiny_run: RunConfig) -> None:
    """Each choice is the end of one blank after the first token, and the context is cut so that both fit."""
    shape = replace(tiny_run.model, vocab_size=tiny_run.model.vocab_size + 3, position_ids=2, position="learned")
    run = replace(tiny_run, model=shape, objective=ObjectiveSettings(kind="blank_infilling"))
    model = LanguageModel(shape)
    model.initialise(0)
    items = some_items([9, 30, 33, 50, 3, 20], [3, 11, 20, 20, 1, 15])
    expected = []
    for ids, scored_ in zip(items.ids, items.scored, strict=True):
        text = ids[-31:]
        example_ = example(text, [(1, len(text))], Ids.of(run), len(text) + 2)[None]
        tokens, targets, *places, _ = (torch.from_numpy(row) for row in example_.transpose(1, 0, 2))
        if tokens.shape[1] > 32:  # the last input predicts the end of the blank, and nothing of the choice
            tokens, targets, places = tokens[:, :32], targets[:, :32], [place[:, :32] for place in places]
        losses = model.loss(tokens, targets, "none", layout=Layout(*places))[0]
        ends = 2 + len(text) - 1  # of what part B predicts of the text
        expected.append(-losses[ends - scored_ : ends].sum().item())
    np.testing.assert_allclose(likelihoods(model, run, items, "cpu"), expected, rtol=1e-4)


def test_the_likeliest_per_byte_wins_and_ties_count_their_share() -> None:
    items = some_items([5] * 8, [4] * 8, bytes=np.array([4, 2, 4, 2, 1, 1, 3, 3]), answer=np.array([0, 1, 1, 0]))
    nats = np.array([-4.0, -3.0, -4.0, -3.0, -2.0, -2.0, -1.0, -5.0])
    assert answers(nats, items).tolist() == [1.0, 0.0, 0.5, 1.0]


def test_bytes_of_tokens() -> None:
    text = "naïve café, naïve café 12345 "
    bpe = train_bpe([text.encode() * 20], 265)
    (ids,) = bpe.encode([text.encode()])
    assert len(ids) < len(text)
    assert bpe.count_bytes(ids) == len(text.encode())
    assert sum(bpe.count_bytes([each]) for each in ids) == len(text.encode())  # parts of a character too
    assert bpe.count_bytes([bpe.end_of_document]) == 0
    assert ByteTokenizer().count_bytes([97, 256, 98]) == 2


def test_scores_are_kept_until_the_items_change(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run = replace(tiny_run, steps=60)
    directory = Store(tmp_path / "store").run(run.run_id)
    train(run, corpus, directory)
    tasks = [items_of("next", NEXT, corpus, T), items_of("blind", replace(NEXT, context=0, items=1000), corpus, T)]
    found = score_tasks(run, directory, tasks, "cpu")
    assert found["next"]["accuracy"] == np.mean(found["next"]["right"]) > 0.25
    assert found["blind"]["accuracy"] == 0.25  # whatever it prefers
    for file in directory.checkpoints.iterdir():
        file.unlink()
    assert score_tasks(run, directory, tasks, "cpu") == found == scored(directory)
    with pytest.raises(InputError, match="holds no checkpoint"):
        score_tasks(run, directory, [items_of("next", replace(NEXT, seed=1), corpus, T)], "cpu")


def test_the_command(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "device=cpu", f"store={tmp_path / 's'}"]
    sweep += [
        "grid=horizons",
        "grid.horizons={parameters: [3e3, 6e3], tokens_per_parameter: [5, 10, 20]}",
        f"out={tmp_path / 'out'}",
    ]
    assert main(["launch", *sweep]) == DONE
    file = written(tmp_path / "mine.jsonl", *[GOOD] * 3, {"context": "a", "choices": ["b"], "answer": 0}).path
    capsys.readouterr()
    assert main(["evaluate", *sweep, f"evaluation.tasks={{mine: {{path: {file}}}}}"]) == BAD_INPUT
    assert capsys.readouterr().err.splitlines() == [
        f"isosweep: evaluation.tasks.mine.path={file}, line 4 has 1 choice; give at least two"
    ]
    assert main(["evaluate", *sweep, "evaluation.tasks={mine: {}}"]) == BAD_INPUT
    tasks = "evaluation.tasks={next: {kind: continuation}, blind: {kind: continuation, context: 0}}"
    capsys.readouterr()
    assert main(["evaluate", *sweep, tasks]) == DONE  # the tasks are no part of what a run is
    out = capsys.readouterr().out
    assert "\nnext " in out
    assert "\nblind only noise: " in out
    frame = pd.read_csv(tmp_path / "out" / "tasks.csv")
    assert frame["task"].tolist() == ["next", "blind"] * 6
    assert ((frame["low"] < frame["accuracy"]) & (frame["accuracy"] < frame["high"])).all()
    assert frame.loc[frame["task"] == "next", "accuracy"].min() > 0.3
    found = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert found["blind"]["verdict"] == "only noise"
    assert found["blind"]["law"]["status"] == "no_rise"
    assert (tmp_path / "out" / "tasks.png").stat().st_size > 5000
