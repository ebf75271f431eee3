"""The report as a file: its numbers, what it loads, what it escapes, and what it says where there is nothing to say."""

import json
import math
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.report import costs
from tests.sweep.report.conftest import QUICK, RESULT

VOID = {"meta", "link", "img", "br"}


@dataclass
class Element:
    """A tag with its attributes and what is in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Any] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        """Every element of that tag inside, with these attributes (data_x stands for data-x)."""
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        inside = [child for child in self.children if isinstance(child, Element)]
        found = [child for child in inside if child.tag == tag and wanted.items() <= child.attributes.items()]
        return found + [deeper for child in inside for deeper in child.all(tag, **attributes)]

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def numbers(self) -> list[float]:
        return [float(data.attributes["value"]) for data in self.all("data")]


class Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"<{self.open[-1].tag}> is closed by </{tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(path: Path) -> Element:
    """The page as a tree; every element must be closed."""
    tree = Tree()
    tree.feed(path.read_text())
    assert [element.tag for element in tree.open] == ["document"]
    return tree.open[0]


@pytest.fixture(scope="module")
def document(report: Path) -> Element:
    return parse(report)


@pytest.fixture(scope="module")
def fits(report: Path) -> dict[str, Any]:
    return json.loads((report.parent / "fits.json").read_text())


def ends(estimate: dict[str, float]) -> list[float]:
    return [estimate["value"], estimate["low"], estimate["high"]]


def test_the_answer_has_the_numbers_of_fits_json(document: Element, fits: dict[str, Any]) -> None:
    rows = [row for row in document.all("tr") if "data-approach" in row.attributes]
    allocations = sorted(fits["answers"]["allocations"], key=lambda row: row["C"])
    assert len(rows) == len(allocations) == 9
    for row, expected in zip(rows, allocations, strict=True):
        assert row.attributes["data-approach"] == expected["approach"]
        names = ("N", "D", "tokens_per_parameter", "loss")
        assert row.numbers == [value for name in names if expected[name] for value in ends(expected[name])]
    hero = document.all("p", **{"class": "hero"})[0]
    first = fits["verdict"]["rows"][0]
    assert hero.numbers == [first["C"], *(first[name]["combined"]["value"] for name in ("N", "D", "loss"))]
    assert f"{first['N']['combined']['value'] / 1000:.0f}\u202fk parameters" in hero.text


def test_the_other_questions_have_the_numbers_of_fits_json(document: Element, fits: dict[str, Any]) -> None:
    answers = fits["answers"]

    def shown(name: str) -> list[list[float]]:
        return [row.numbers for row in document.all("tr") if f"data-{name}" in row.attributes]

    growth = [[value for key in "ND" for value in ends(row[key]) if value is not None] for row in answers["growth_per_tenfold"]]
    assert shown("growth") == growth
    assert [len(row) for row in growth] == [6, 6, 6, 2, 2]
    for name, rows, first, keys in (
        ("gain", answers["gains_of_doubling"], "C", ("of_N", "of_D", "of_C")),
        ("size", answers["sizes"], "N", ("C", "D", "tokens_per_parameter")),
    ):
        assert shown(name) == [[row[first], *(value for key in keys for value in ends(row[key]))] for row in rows]
    ways = [way for each in answers["improvements"] for way in each["ways"]]
    held = [[x for key in "NDC" if way[key] for x in ends(way[key])] for way in ways]
    finite = [[math.inf if x is None else x for x in row] for row in held]
    assert shown("way") == finite
    assert [len(row) for row in held[:3]] == [6, 6, 9]
    assert "No amount is enough" in document.all("section", id="answer")[0].text
    (model,) = answers["models"]
    parts = ("loss", "N_opt", "D_opt", "best_loss", "distance", "C_needed", "wasted", "use")
    assert sorted(shown("model")[0]) == sorted([model[key] for key in "NDC"] + [x for key in parts for x in ends(model[key])])


def test_the_laws_have_the_numbers_of_fits_json(document: Element, fits: dict[str, Any]) -> None:
    for name in ("envelope", "isoflop", "parametric"):
        row = document.all("tr", data_law=name)[0]
        assert row.numbers[:6] == ends(fits[name]["a"]) + ends(fits[name]["b"])
    constants = document.all("tr", data_law="constants")[0].numbers
    assert constants == [value for name in ("E", "A", "B", "alpha", "beta") for value in ends(fits["parametric"][name])]
    for i, held in enumerate(fits["extrapolation"]):
        shown = document.all("tr", data_held=str(i))[0].numbers
        assert shown == [held[name] for name in ("above", "factor", "error", "bias", "covered")]


def test_it_says_where_the_approaches_disagree(document: Element, fits: dict[str, Any]) -> None:
    allocations = fits["answers"]["allocations"]
    boxes = document.all("div", **{"class": "budget"})
    for box, C in zip(boxes, dict.fromkeys(row["C"] for row in allocations), strict=True):
        rows = [row for row in allocations if row["C"] == C]
        columns = {"N": [row["N"] for row in rows], "D": [row["D"] for row in rows]}
        columns["D / N"] = [row["tokens_per_parameter"] for row in rows]
        columns["loss"] = [row["loss"] for row in rows if row["loss"] and not row["training_loss"]]
        apart = [name for name, of in columns.items() if any(one["high"] < other["low"] for one in of for other in of)]
        assert ("do not overlap" in box.text) == bool(apart)
        badges = box.all("span", **{"class": "badge differ"})
        assert [badge.text.strip() for badge in badges] == ([f"approaches differ in {' and '.join(apart)}"] if apart else [])


def test_the_headline_is_the_verdict(document: Element, fits: dict[str, Any]) -> None:
    verdict, answer = fits["verdict"], document.all("section", id="answer")[0]
    best = verdict["rows"][0]
    assert answer.numbers[:4] == [best["C"], *(best[name]["combined"]["value"] for name in ("N", "D", "loss"))]
    for title, reason in verdict["set_aside"].items():
        assert title in answer.text
        assert reason in answer.text
    assert verdict["advice"] in answer.text


def test_the_cost_is_that_of_the_table(document: Element) -> None:
    hours = pd.read_csv(RESULT / "runs.csv")["seconds"].sum() / 3600
    shown = document.all("section", id="cost")[0].numbers
    assert shown[0] == pytest.approx(hours, rel=1e-9)
    assert shown[1] == pytest.approx(hours * 10 * 1.25 / 1000, rel=1e-9)  # kWh, with ask.pue
    assert shown[2] == pytest.approx(hours * 10 * 1.25 / 1000 * 0.385, rel=1e-9)  # kg
    assert "the building adds 25\u202f%" in document.all("section", id="cost")[0].text


def test_every_section_and_figure_is_there(document: Element) -> None:
    assert [part.attributes["id"] for part in document.all("section")] == [
        *("answer", "approaches", "firmness", "runs", "cost", "provenance", "choices")
    ]
    figures = [figure.attributes["id"].removeprefix("figure-") for figure in document.all("figure")]
    names = ("frontier", "isoflop", "envelope", "thirds", "learning", "tokens_to_loss", "collapse", "parametric", "residuals")
    assert figures == [*names, "sensitivity", "extrapolation", "conventions", "kaplan"]
    for figure in document.all("figure"):
        assert figure.all("img")[0].attributes["src"].startswith("data:image/")
        assert len(figure.all("figcaption")[0].text) > 60
    assert {plot.attributes["data-plot"] for plot in document.all("div") if "data-plot" in plot.attributes} == {
        *("frontier", "profiles", "curves")
    }
    assert "Optimiser and starts" in document.text


def test_the_file_is_complete_and_small(report: Path, document: Element) -> None:
    assert report.stat().st_size < 10e6
    assert [path.name for path in report.parent.iterdir() if path.suffix != ".json"] == ["report.html"]
    fetching = ("src", "href", "action", "data", "poster", "srcset")

    def check(element: Element) -> None:
        for name in fetching:
            address = element.attributes.get(name, "#")
            assert address.startswith(("#", "data:")), f"<{element.tag} {name}={address[:60]}>"
        for child in element.children:
            if isinstance(child, Element):
                check(child)

    check(document)
    style = document.all("style")[0].text
    assert "url(" not in style
    assert "@import" not in style


def hostile_table(path: Path) -> Path:
    """A simulated sweep whose run names, and reasons for leaving one out, are markup."""
    rng = np.random.default_rng(0)
    rows = []
    for budget in (1e18, 1e19, 1e20):
        for factor in np.geomspace(0.2, 5, 7):
            N = factor * 0.1 * budget**0.5
            D = budget / 6 / N
            loss = 1.8 + 480 / N**0.347 + 2140 / D**0.367 + rng.normal() * 0.002
            rows.append({"N": N, "D": D, "loss": loss, "budget": budget, "state": "done"})
    frame = pd.DataFrame(rows)
    frame["run_id"] = [
        f"</script><script>sequence.hacked = {i}</script><img src=x onerror=alert({i})>" for i in range(len(frame))
    ]
    frame.loc[0, "state"] = "<b>crashed</b>"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of such a table, without curves, costs or other conventions."""
    out = tmp_path_factory.mktemp("hostile")
    title = "report.title='<i>mine</i> & yours'"
    assert main(["report", f"table={hostile_table(out / 'runs.csv')}", title, *QUICK, f"out={out}"]) == DONE
    return out / "report.html"


def test_text_from_a_table_is_inert(hostile: Path) -> None:
    document = parse(hostile)
    assert len(document.all("script")) == 4  # two plots, plotly.js and the page's own
    assert not [image for image in document.all("img") if "onerror" in image.attributes]
    assert not document.all("i")
    assert document.all("h1")[0].text == "<i>mine</i> & yours"
    runs = document.all("section", id="runs")[0]
    assert not runs.all("b")
    assert "<script>sequence.hacked = 0</script>" in runs.text
    for plot in document.all("script", type="application/json"):
        assert "<" not in plot.text
        json.loads(plot.text)


def test_what_a_table_cannot_tell_is_said(hostile: Path) -> None:
    document = parse(hostile)
    reasons = [absent.text for absent in document.all("p", **{"class": "absent"})]
    for words in ("training curves", "N_non_embedding", "“seconds”"):
        assert any(words in reason for reason in reasons), words
    assert "envelope" not in {figure.attributes["id"].removeprefix("figure-") for figure in document.all("figure")}
    unknown = document.all("div", **{"class": "unknown"})
    assert {"Tokenizer", "Data", "Schedule"} <= {choice.all("dt")[0].text for choice in unknown}


def test_points_of_chinchilla_without_budgets(chinchilla_csv: Path, tmp_path: Path) -> None:
    names = ["columns.N='Model Size'", "columns.C='Training FLOP'"]
    assert main(["report", f"table={chinchilla_csv}", *names, *QUICK, f"out={tmp_path}"]) == DONE
    document = parse(tmp_path / "report.html")
    assert "Only Approach 3 could be fitted" in document.text
    absent = " ".join(reason.text for reason in document.all("p", **{"class": "absent"}))
    assert "no run names a planned budget" in absent


def test_losses_in_bits_per_byte_are_named_so(hostile: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(hostile.parent / "runs.csv")
    frame.assign(bits_per_byte=frame["loss"] / 3).to_csv(tmp_path / "runs.csv", index=False)
    arguments = [f"table={tmp_path / 'runs.csv'}", "fit.loss=bits_per_byte", f"out={tmp_path}"]
    assert main(["report", *arguments, *QUICK]) == DONE
    document = parse(tmp_path / "report.html")
    assert "Loss, bits per byte" in document.text
    assert "nats per token" not in document.text


def test_an_empty_store_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.commands.reporting.make_fits", lambda config: pytest.fail("long work began"))
    store = tmp_path / "store"
    for _ in range(2):  # without the folder, and with an empty one
        assert main(["report", "experiment=smoke", f"store={store}"]) == BAD_INPUT
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"no sweep smoke was launched into store={store}" in error
        (store / "runs").mkdir(parents=True, exist_ok=True)


def test_a_table_that_no_law_fits_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "runs.csv"
    pd.DataFrame({"N": [1e6, 2e6], "D": [1e8, 1e8], "loss": [3.0, 2.9]}).to_csv(table, index=False)
    assert main(["report", f"table={table}", f"out={tmp_path}"]) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no law could be fitted" in error
    assert not (tmp_path / "report.html").exists()


def test_costs_count_devices_apart() -> None:
    frame = pd.DataFrame(
        {
            "run_id": ["a", "b", "c", "d"],
            "device": ["cpu", "cuda", "cuda", "cuda"],
            "seconds": [3600.0, 7200.0, 1800.0, math.nan],
            "cores": [1, 2, 1, 1],
        }
    )
    found = costs(frame, {"a": 1e14, "b": 1e18, "c": 1e17, "d": 1e17}, run_id="run_id", core_watts=10, gpu_watts=700)
    assert not isinstance(found, str)
    core, gpu = found
    assert (core.unit, core.taken.gpu_hours) == ("core", pytest.approx(1))
    assert (gpu.unit, gpu.runs, gpu.taken.gpu_hours) == ("GPU", 2, pytest.approx(4.5))
    assert gpu.taken.kWh == pytest.approx(4.5 * 0.7 * 1.1)
    assert gpu.of(2.2e18).gpu_hours == pytest.approx(9)
    assert "“seconds”" in str(costs(frame.drop(columns="seconds"), {}, run_id="run_id", core_watts=1, gpu_watts=1))
