"""Fields whose values may be secrets, such as a token in cluster.slurm.setup: where others can read, only their shape is shown.

What is a secret cannot be told by looking at it, so no value of such a field is shown: of a line of bash, its first word.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from sweep.config.fields import PRIVATE
from sweep.config.sweep import SweepConfig
from sweep.errors import InputError

HIDDEN = "<not shown>"


def shown(config: Any) -> dict[str, Any]:
    """The values of a dataclass for everybody to read, as of `asdict`, without those of its private fields."""
    values = asdict(config)
    for key, value in _private(config):
        *groups, name = key.split(".")
        place = values
        for group in groups:
            place = place[group]
        place[name] = _hide(value)
    return values


def secrets(config: Any) -> dict[str, Any]:
    """The values of private fields that hold any, by their names; see `restore`."""
    return {key: value for key, value in _private(config) if value}


def restore(config: Any, found: Mapping[str, Any]) -> None:
    """Put what `secrets` returned back into a configuration that was made from what `shown` did. Raises ValueError if it is no
    mapping."""
    if not isinstance(found, Mapping):
        raise ValueError("its file of secrets holds no mapping")
    for key, value in found.items():
        *groups, name = key.split(".")
        place = config
        for group in groups:
            place = getattr(place, group, None)
        if place is not None:
            setattr(place, name, value)


def require_secrets(config: Any, prefix: str, remedy: str) -> None:
    """Raises InputError if a private field of `config`, whose name is `prefix`, is only what `shown` left of it."""
    for key, value in _private(config, f"{prefix}."):
        if HIDDEN in str(value):
            problem = f"{key} is not in the written plan, as it may hold secrets, and its own file cannot be read"
            raise InputError(f"{problem}; {remedy}")


def shown_override(text: str) -> str:
    """An override for everybody to read."""
    key, equals, value = text.partition("=")
    name = key.lstrip("+")
    for private in _names(SweepConfig):
        inside, around = f"{name}.".startswith(f"{private}."), private.startswith(f"{name}.") and "{" in value
        if equals and (inside or around):
            return f"{key}={HIDDEN}"
    return text


def shown_words(lines: Sequence[str]) -> list[str]:
    """What is shown of lines of bash, or of options: the first word of each, up to an equals sign."""
    return [_hide(line) for line in lines]


def _hide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    if isinstance(value, list | tuple):
        return shown_words(value)
    line = str(value).strip()
    kept = re.match(r"[\w./+-]*=?", line).group()  # type: ignore[union-attr]  # it matches the empty text too
    return kept if kept == line else f"{kept} {HIDDEN}".strip()


def _private(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for each in fields(config):
        value = getattr(config, each.name)
        if each.metadata.get(PRIVATE):
            yield prefix + each.name, value
        elif is_dataclass(value):
            yield from _private(value, f"{prefix}{each.name}.")


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    """The names of all private fields below a dataclass, present or not."""
    for each in fields(config):
        if each.metadata.get(PRIVATE):
            yield prefix + each.name
        for part in (each.type, *getattr(each.type, "__args__", ())):
            if is_dataclass(part):
                yield from _names(part, f"{prefix}{each.name}.")
