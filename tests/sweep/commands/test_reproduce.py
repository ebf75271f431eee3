"""Reproducing a paper: its experiments one after another, several corpora among them, and the page of what came out."""

import json
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE, SOME_RUNS_FAILED
from sweep.commands.experiments import reproducing
from sweep.commands.experiments.reproducing import PAPERS
from sweep.compare import ANALYSES
from sweep.config import compose
from sweep.errors import InputError
from tests.waiting import PATIENCE_S, wait_until

TINY = {"N": 2252, "D": 3e4}
ROOT = Path(__file__).resolve().parents[3]
EXPERIMENTS = [path.stem for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))]


@pytest.fixture
def paper(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A paper of two experiments, and the arguments that name it."""
    data = {"source": "text", "paths": [str(text_file)], "validation_tokens": 4096, "max_epochs": 20}
    shared = {"device": "cpu", "data": data, "grid": {"isoflop": None, "runs": [TINY, TINY | {"N": 4872}]}}
    rates = {
        "name": "rates",
        "axis": {"variants": {"fast": {}, "slow": {"optimizer.lr_scale": 0.1}}, "seeds": [0, 1, 2]},
        "about": {"paper": "Tiny 2020, Fig. 1", "found": "slow is worse", "labels": {"slow": "worse"}},
    }
    texts = {"name": "texts", "sweeps": {"one": [], "two": ["data.validation_tokens=8192"]}}
    texts["about"] = {"paper": "Tiny 2020, Fig. 2", "exponents": "a is 0.50 for both texts"}
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name, values in (("tiny_rates", rates), ("tiny_texts", texts)):
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(shared | values)}")
    monkeypatch.setitem(PAPERS, "tiny", ("tiny_rates", "tiny_texts"))
    return ["reproduce", "tiny", "--config-dir", str(tmp_path / "conf"), f"store={tmp_path / 'store'}"]


def test_a_paper_is_reproduced_and_a_second_time_only_shown(
    paper: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(paper) == DONE
    assert "holds: slow is worse than fast" not in (told := capsys.readouterr().out)  # it is on the page
    assert "texts-two: 2 runs, 0 finished before" in told
    page = (tmp_path / "store" / "tiny.html").read_text()
    assert "Tiny 2020, Fig. 1" in page
    assert "slow is worse than fast" in page
    assert "<strong>holds</strong>" in page
    assert "a is 0.50 for both texts" in page
    assert "not every label has a law" in page  # of two sizes
    assert page.count("data:image/png;base64,") == 1
    assert "http" not in page.replace("http://www.w3.org", "")
    assert main(paper) == DONE
    assert "6 finished before" not in (again := capsys.readouterr().out)
    assert again.count(" 0 to train on cpu") == 3
    # Several sweeps go by one name where they are compared, and by their own elsewhere.
    store = paper[-1]
    assert main(["compare", "texts", store]) == DONE
    assert "no losses: the sweeps are of different corpora" in capsys.readouterr().out
    found = json.loads((tmp_path / "store" / "sweeps" / "texts" / "compare.json").read_text())
    assert found["labels"]["comparison"] is None
    assert main(["status", "texts-one", store]) == DONE
    capsys.readouterr()
    assert main(["status", "texts", store]) == BAD_INPUT
    assert "texts is several sweeps: texts-one, texts-two" in capsys.readouterr().err


def test_one_interrupt_stops_all_experiments(paper: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    for name in ("tiny_rates", "tiny_texts"):  # runs of minutes
        values = yaml.safe_load((folder / f"{name}.yaml").read_text())
        values["grid"]["runs"] = [TINY | {"D": 3e8}]
        values["data"] |= {"max_epochs": 100_000}
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(values)}")
    for papers, first in (("('tiny_rates', 'tiny_texts')", "rates"), ("('tiny_texts', 'tiny_rates')", "texts-one")):
        code = f"from sweep.commands.experiments.reproducing import PAPERS; PAPERS['tiny'] = {papers}; import sweep.cli; "
        command = [sys.executable, "-c", f"{code} raise SystemExit(sweep.cli.main())", *paper]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: any((tmp_path / "store").glob("runs/*/throughput.jsonl")))
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == SOME_RUNS_FAILED
        assert told.count(" to train on cpu") == 1
        assert f"{first}: " in told
        assert "the same command writes the page" in told
        shutil.rmtree(tmp_path / "store")


def test_what_is_no_paper_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "gpt"]) == BAD_INPUT
    assert "kaplan, chinchilla, llama" in capsys.readouterr().err
    assert main(["reproduce"]) == BAD_INPUT
    assert main(["reproduce", "kaplan", "name=mine"]) == BAD_INPUT
    assert "name=mine is the same for all experiments of kaplan" in capsys.readouterr().err


def test_every_experiment_of_a_paper_exists_and_says_what_it_is_about() -> None:
    for name in (name for names in reproducing.PAPERS.values() for name in names):
        assert name in EXPERIMENTS
        about = compose([f"experiment={name}"]).about
        assert name == "smoke" or (about.paper and about.found and about.expected)
        assert about.analysis is None or about.analysis in ANALYSES


@pytest.mark.parametrize("paper", PAPERS)
def test_every_run_of_a_paper_can_be_planned(
    paper: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All grids are expanded before the first run is trained, and then launching would begin."""

    def launched(options: Namespace) -> int:
        raise InputError("all are planned")

    monkeypatch.setattr(reproducing, "launch", launched)
    headers = [] if Path("/usr/include/stdio.h").exists() else ["sweeps.headers=[data=stdlib]"]
    assert main(["reproduce", paper, f"store={tmp_path}", *headers]) == BAD_INPUT
    assert capsys.readouterr().err.endswith("isosweep: all are planned\n")  # perhaps after a note on sizes
    if paper == "chinchilla":
        assert main(["reproduce", paper, f"store={tmp_path}", *headers, "grid.isoflop.budgets=[1e9]"]) == BAD_INPUT
        assert "isosweep: smoke: grid.isoflop at budget 1e+09: no model" in capsys.readouterr().err


def test_tables_from_elsewhere_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(N, D, 2 + 30 * N**-0.4 + 60 * D**-0.35) for N in (1e4, 3e4, 1e5, 3e5) for D in (1e6, 4e6, 2e7)]
    for name, worse in (("ours", 0.0), ("theirs", 0.05)):
        lines = ["N,D,loss", *(f"{N:.0f},{D:.0f},{loss + worse:.6f}" for N, D, loss in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    tables = f"tables={{ours: {tmp_path / 'ours.csv'}, theirs: {tmp_path / 'theirs.csv'}}}"
    assert main(["compare", tables, f"out={tmp_path / 'out'}", "fit.seed_noise=0.005"]) == DONE
    shown = capsys.readouterr().out
    assert shown.count("differs") == len(rows) + 1
    assert "a of theirs by parametric: 0.46" in shown
    assert main(["compare", f"tables={{ours: {tmp_path / 'ours.csv'}}}"]) == BAD_INPUT
    assert "needs at least two" in capsys.readouterr().err
