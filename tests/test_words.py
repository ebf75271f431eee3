"""Numbers in sentences: one run, two runs, and no minus before a zero."""

import re
from pathlib import Path

import pytest

from sweep.fit import Estimate
from sweep.report.text import KINDS, number
from sweep.words import counted

ROOT = Path(__file__).resolve().parent.parent


def test_singular_and_plural() -> None:
    assert [counted(count, "run") for count in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert counted(2, "process", "processes") == "2 processes"


@pytest.mark.parametrize("kind", ["loss", "exponent", "change", "number"])
def test_no_minus_before_a_zero(kind: str) -> None:
    assert kind in KINDS
    for value in (-0.0, -1e-5) if kind != "number" else (-0.0,):
        assert not re.search(r"-0(\.0*)?$", number(value, kind).striptags())
    assert not str(Estimate(value=-0.0, low=-0.0, high=0.5)).startswith("-")


def test_signed_numbers_are_written_without_a_minus_before_a_zero() -> None:
    """Python's format needs a z for that."""
    for path in (ROOT / "sweep").rglob("*.py"):
        assert not re.findall(r"\{[^{}]*:\+\.\d[f%]\}", path.read_text(encoding="utf-8")), path
