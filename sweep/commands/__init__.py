"""The commands. Each reads its input, calls one function, prints the result, and returns the exit code."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DONE, SOME_RUNS_FAILED, BAD_INPUT = 0, 1, 2
WIDE = 160  # columns


def console(*, stderr: bool = False) -> "Console":
    """Standard output, or standard error; as wide as the terminal, or as COLUMNS says, else `WIDE`."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal or _columns_are_given() else Console(width=WIDE, stderr=stderr)


def columns() -> int | None:
    """How wide a table may be: as the terminal, or as COLUMNS says; None where the output goes elsewhere."""
    screen = console()
    return screen.width if screen.is_terminal or _columns_are_given() else None


def _columns_are_given() -> bool:
    return os.environ.get("COLUMNS", "").isdigit()
