"""The commands. Each reads its input, calls one function, prints the result, and returns the exit code."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DONE, SOME_RUNS_FAILED, BAD_INPUT = 0, 1, 2


def console(width: int = 120, *, stderr: bool = False) -> "Console":
    """Standard output, or standard error; off a terminal it is `width` columns wide, so that no table is cut."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(width=width, stderr=stderr)
