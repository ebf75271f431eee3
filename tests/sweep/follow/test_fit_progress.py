"""What a long fit says while it runs, off a terminal; a short one says nothing."""

import io

import pytest
from rich.console import Console

from sweep.follow import progress
from sweep.follow.progress import FitProgress


def test_a_long_fit_says_how_far_it_is_in_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with FitProgress(Console(file=stream, width=120)) as tell:
        for second in range(30):
            now = 100.0 + second
            tell("held-out budgets", second, 30)
            if second == 2:
                assert not stream.getvalue()
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("fitting held-out budgets, 3 of 30 done")
    assert len(lines) == 3
