"""Fields that declare the values they allow, and the check of a whole configuration against them.

The bound stands beside the field it binds:

    cycle: float = number(1.0, at_least=1)
    device: str = choice("auto", "cpu", "cuda")  # the first is the default
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from operator import ge, gt, le, lt
from typing import Any

from sweep.errors import InputError

ALLOWED, PRIVATE = "allowed", "private"  # keys of a field's metadata: its check; whether its values may be secrets


def number(
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field that is a finite number within these bounds, or None where its type allows that."""
    bounds = (("at least", ge, at_least), ("above", gt, above), ("at most", le, at_most), ("below", lt, below))
    given = [(f"{words} {bound}", holds, bound) for words, holds, bound in bounds if bound is not None]

    def check(value: Any) -> str | None:
        broken = [text for text, holds, bound in given if not (math.isfinite(value) and holds(value, bound))]
        return f"is out of range; it must be {' and '.join(broken)}" if broken else None

    return field(default=default, metadata={ALLOWED: check})


def choice(*choices: str, default: str | None = MISSING) -> Any:  # type: ignore[assignment]
    """A field that is one of `choices`, or None where its type allows that; the first is the default, unless `default` is."""

    def check(value: Any) -> str | None:
        return None if value in choices else f"is none of {', '.join(choices)}"

    return field(default=choices[0] if default is MISSING else default, metadata={ALLOWED: check})


def choice_or_name(*choices: str) -> Any:
    """A field that is one of `choices`, the first by default, or a name that only the data know."""
    return field(default=choices[0], metadata={ALLOWED: lambda value: None if value.strip() else "is empty"})


def choices(*choices: str, default: Sequence[str]) -> Any:
    """A field that is a list of some of `choices`, at least one and each once."""

    def check(value: Any) -> str | None:
        wrong = not value or len(set(value)) < len(value) or not set(value) <= set(choices)
        return f"is no list of at least one of {', '.join(choices)}, each once" if wrong else None

    return field(default_factory=lambda: list(default), metadata={ALLOWED: check})


def nonempty(default: Any = MISSING) -> Any:
    """A field that is a list of at least one entry, or None where its type allows that."""

    def check(value: Any) -> str | None:
        return None if len(value) else "is empty; name at least one, or leave it out"

    return field(default=default, metadata={ALLOWED: check})


def checked(problem: Callable[[Any], str | None], *, default: Any = MISSING) -> Any:
    """A field with a check of its own: what is wrong with a value, or None. A value that is None is not checked."""
    return field(default=default, metadata={ALLOWED: problem})


def private(default: Callable[[], Any]) -> Any:
    """A list or dictionary whose values may be secrets, such as a token: see `sweep.config.secrets`."""
    return field(default_factory=default, metadata={PRIVATE: True})


def check_fields(config: Any, prefix: str = "") -> None:
    """Check every field of a dataclass and of those inside it. Raises InputError for the first value that is not allowed; it
    names the field, the value and what is allowed."""
    for name, value, check in _checked(config, prefix):
        if value is not None and (problem := check(value)) is not None:
            raise InputError(f"{name}={on_one_line(value)} {problem}")


def on_one_line(value: Any) -> str:
    """A value for a message: as it is, or quoted if it is empty, or would break the line or be invisible in it."""
    shown = str(value)
    return shown if shown.isprintable() and shown.strip() == shown != "" else repr(shown)


def _checked(config: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for each in fields(config):
        name, value = prefix + each.name, getattr(config, each.name)
        if ALLOWED in each.metadata:
            yield name, value, each.metadata[ALLOWED]
        for inner, key in _configs_in(value, name):
            yield from _checked(inner, f"{key}.")


def _configs_in(value: Any, name: str) -> Iterator[tuple[Any, str]]:
    """The dataclasses that a field holds, directly or in a list or dictionary, each with its name."""
    if is_dataclass(value):
        yield value, name
    elif isinstance(value, dict):
        yield from ((entry, f"{name}.{key}") for key, entry in value.items() if is_dataclass(entry))
    elif isinstance(value, list):
        yield from ((entry, f"{name}[{i}]") for i, entry in enumerate(value) if is_dataclass(entry))
