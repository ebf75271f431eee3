"""Errors of the user's input, which say what is wrong and how to fix it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """Bad input from the user. The message names the field, the value and the remedy; the command line prints it
    on one line and exits with code 2."""


@contextmanager
def explained(problem: str, remedy: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception) -> Iterator[None]:
    """Raise an InputError in place of `errors`, with `one_line` of the error as the reason."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        raise InputError(f"{problem} ({one_line(error)}); {remedy}") from error


class LawError(InputError):
    """A law cannot be fitted to these runs. `status` is a short name for why, the message says what is needed."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def to_dict(self) -> dict[str, Any]:
        """The entry in fits.json in place of the law's numbers."""
        return {"status": self.status, "reason": str(self)}

    def summary(self) -> str:
        """One line of text."""
        return f"not fitted ({self.status}): {self}"


def one_line(error: BaseException) -> str:
    """Another library's error, its type and the first line of its message, for a message of ours."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")[:300]
