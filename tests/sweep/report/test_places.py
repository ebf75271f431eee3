"""What a report does not show: absolute paths, host names, and what may be a secret."""

import html
import platform
from pathlib import Path

import pytest
import yaml

from sweep.cli import main
from sweep.commands import DONE
from sweep.report.text import values_without_places, without_places
from tests.sweep.report.conftest import RESULT


def test_absolute_paths_and_hosts_are_shown_if_asked_for_and_secrets_never(tmp_path: Path) -> None:
    table = tmp_path / "my own" / "runs.csv"
    table.parent.mkdir()
    table.write_bytes((RESULT / "runs.csv").read_bytes())
    setup = 'cluster.slurm.setup=["export HF_TOKEN=hf_AbCdEf"]'
    arguments = ["report.places=true", "cluster=slurm", setup, "fit.resamples=0", f"out={tmp_path}/out"]
    assert main(["report", f"table={table}", *arguments]) == DONE
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    shown = yaml.safe_load(page.partition("The configuration</summary><pre>")[2].partition("</pre>")[0])
    assert shown["table"] == str(table)
    assert f"+00:00 on {platform.node()}" in page
    assert shown["cluster"]["slurm"]["setup"] == ["export <not shown>"]
    assert "hf_AbCdEf" not in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann/st/a.json is damaged", "…/a.json is damaged"),
        ("(see /srv/my data/runs/ab/status.json)", "(see …/runs/ab/status.json)"),
        ("'~ann/x/y.csv' and file:///home/ann/z.csv", "'…/y.csv' and …/z.csv"),
        ("D/N at 1/step, https://arxiv.org/abs/2502.18969, a/b/c, wandb://entity/project", None),
    ],
)
def test_paths_in_sentences(text: str, shown: str | None) -> None:
    assert without_places(text, ["/srv/my data"]) == (shown or text)


def test_values_that_are_paths_are_their_last_part_whatever_is_in_them() -> None:
    values = {"store": "/srv/my data/st", "paths": ["~/a b.txt", "c/d.txt"], "n": 3}
    assert values_without_places(values) == {"store": "…/st", "paths": ["…/a b.txt", "c/d.txt"], "n": 3}
