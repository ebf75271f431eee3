"""The documentation: links resolve, commands and flags exist, overrides compose, and the first pages stay short."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from sweep.cli import COMMANDS, parse
from sweep.config import compose

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
MAX_LINES = {"README.md": 120, "CONTRIBUTING.md": 120}
LINK = re.compile(r"\]\(([^)\s]+)\)")
BASH = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SEPARATORS = {"&&", "|", ";"}


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


@pytest.mark.parametrize("words", cases(program="isosweep"))
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
