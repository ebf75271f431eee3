"""The documentation: links resolve, commands and flags exist, overrides compose, and the first pages stay short."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from sweep.cli import COMMANDS, parse
from sweep.commands.experiments.reproducing import PAPERS
from sweep.config import compose

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
MAX_LINES = {"README.md": 120, "CONTRIBUTING.md": 120}
LINK = re.compile(r"\]\(([^)\s]+)\)")
BASH = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SEPARATORS = {"&&", "|", ";"}
INLINE = re.compile(r"`(isosweep [^`]+)`")
EXPERIMENT = re.compile(r"\bexperiment=([a-z]\w*)")
OF_PAPERS = ROOT / "docs/papers.md"


def anchors(page: Path) -> set[str]:
    """What a link to a heading of `page` may say after the #, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the page's bash blocks, comments left out."""
    found: list[list[str]] = []
    for block in BASH.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), ";"]:
                if word in SEPARATORS:
                    found += [words] if words else []
                    words = []
                else:
                    words.append(word)
    return found


def cases(*, program: str) -> list:
    """Every command of the documentation that runs `program`, named by its page and its words."""
    return [
        pytest.param(words, id=f"{page.stem}: {' '.join(words)}")
        for page in PAGES
        for words in commands(page)
        if program in words
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_run_ids_are_those_of_runs_that_exist() -> None:
    """In the results, or in the plans whose run_ids are pinned."""
    runs = "".join(path.read_text() for path in [*ROOT.glob("results/*/runs.csv"), ROOT / "tests/goldens/run_ids.json"])
    for page in PAGES:
        named = re.findall(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,16}\b", page.read_text())
        assert [name for name in named if name not in runs] == [], page.name


@pytest.mark.parametrize("name", MAX_LINES)
def test_first_pages_are_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= MAX_LINES[name]


@cache
def check(overrides: tuple[str, ...]) -> None:
    """Raises InputError if the overrides do not compose."""
    compose(overrides)


@pytest.mark.parametrize(
    "words", [*cases(program="isosweep"), *(shlex.split(text) for text in INLINE.findall(OF_PAPERS.read_text()))], ids=" ".join
)
def test_commands_of_isosweep_parse(words: list[str]) -> None:
    name, *rest = words[words.index("isosweep") + 1 :]
    assert name in COMMANDS
    overrides = parse(name, rest).overrides
    if not {"experiment=mine", "grid=[isoflop,next]"} & set(overrides):  # the reader's own files of conf/
        check(tuple(overrides))


@pytest.mark.parametrize("words", [*cases(program="python"), *cases(program="bash")])
def test_scripts_exist_and_have_the_flags(words: list[str]) -> None:
    script, *rest = words[words.index("python" if "python" in words else "bash") + 1 :]
    known = (ROOT / script).read_text() + (ROOT / "tests/conftest.py").read_text()  # test.sh passes its flags on to pytest
    for flag in (word for word in rest if word.startswith("--")):
        assert f'"{flag}"' in known or f" {flag}" in known, flag


def test_experiments_exist() -> None:
    for page in PAGES:
        named = set(EXPERIMENT.findall(page.read_text())) - {"mine"}  # the reader's own
        assert [name for name in sorted(named) if not (ROOT / f"conf/experiment/{name}.yaml").exists()] == [], page.name


def test_every_experiment_of_a_paper_is_on_its_page() -> None:
    """docs/papers.md names each experiment that `isosweep reproduce` trains, in the section of its paper."""
    headings = {"kaplan": "Kaplan", "chinchilla": "Chinchilla", "llama": "LLaMA", "glm": "GLM"}
    sections = re.split(r"^## ", OF_PAPERS.read_text(), flags=re.MULTILINE)[1:]
    assert headings.keys() == PAPERS.keys()
    ours = {"smoke", "kaplan_chinchilla"}  # of none of the four papers
    for paper, experiments in PAPERS.items():
        (section,) = (text for text in sections if text.startswith(headings[paper]))
        assert set(experiments) - ours - set(EXPERIMENT.findall(section)) == set(), paper


def test_every_row_of_the_papers_has_a_command_or_a_reason() -> None:
    lines = [line for line in OF_PAPERS.read_text().splitlines() if line.startswith("| ") and line != "| | shows | here |"]
    reasons = ("benchmark", "finetuning", "people", "list", "left out", "not public", "drawings")
    assert len(lines) > 50
    for what, shown, here in (line.strip("| ").split(" | ") for line in lines):
        assert shown, what
        assert "isosweep " in here or "experiment=" in here or here.startswith(reasons), what
