"""Fields by their names on the command line: values taken as they are typed, and what to say of a name that is no field."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from sweep.config.sweep import SweepConfig

TEXT = (str, str | None)
TEXTS = (list[str], list[str] | None)
ENTRY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*(?:,|$)|((?:\$\{[^}]*\}|[^,])*)(?:,|$)""")


def literal(overrides: Sequence[str]) -> list[str]:
    """`overrides` with quotes around values of text fields that Hydra's grammar does not take, or takes for something else:
    paths with blanks, parentheses or umlauts, expressions, 1e3. What Hydra's users write on purpose means what it does there:
    null, quotes, and `${…}`, as in ${oc.env:SCRATCH}/store. Lists of paths are written [a,b], where a path with a comma needs
    quotes, or as their only path. Hydra names what is wrong in the other fields."""
    return [_quoted(override) for override in overrides]


def is_field(key: str) -> bool:
    """Whether a configuration with all its parts has the field or group `key`, such as "columns.N"."""
    return _type_of(key) is not None


def unknown_field(key: str) -> str:
    """Why `key`, such as "columns.Nn", is refused: the fields that there are, and the one that was probably meant."""
    parent, _, name = key.rpartition(".")
    config = _type_of(parent)
    if not is_dataclass(config):
        return f"{key!r} is no field" + (f"; {parent} has no fields" if parent else "")
    names = [each.name for each in fields(config)]
    close = get_close_matches(name, names, n=1) or [each for each in names if each.casefold() == name.casefold()]
    meant = f"; did you mean {'.'.join(filter(None, (parent, close[0])))}?" if close else ";"
    return f"{key!r} is no field{meant} {parent or 'a sweep'} has {', '.join(names)}"


def _quoted(override: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    kind = _type_of(key.lstrip("+"))
    if equals and kind in TEXTS and key.lstrip("+").startswith(("data.", "evaluation.")):
        return f"{key}={_quoted_list(value.strip())}"
    if not equals or kind not in TEXT:
        return override
    try:
        parsed = OverridesParser.create().parse_override(override)
        on_purpose = value == "null" or value[:1] in ("'", '"')
        if not parsed.is_sweep_override() and (on_purpose or parsed.value() == value):
            return override
    except HydraException:
        pass
    return f"{key}={_quoted_text(value)}"


def _quoted_text(text: str) -> str:
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), text)  # others are no escapes
    return f"'{escaped}'"


def _quoted_list(value: str) -> str:
    if value in ("null", "[]") or value.startswith("${"):
        return value
    if not (value.startswith("[") and value.endswith("]")):
        on_purpose = value.startswith(("'", '"'))
        return f"[{value if on_purpose else _quoted_text(value)}]"
    return f"[{','.join(_entries(value[1:-1]))}]"


def _entries(value: str) -> Iterator[str]:
    """The entries of a list, each in quotes; commas inside quotes and `${…}` do not end one."""
    place = 0
    while place < len(value):
        found = ENTRY.match(value, place)
        assert found is not None
        place = found.end()
        yield found[1] or _quoted_text(found[2].strip())


def _type_of(key: str) -> Any:
    """The type of a field; a dataclass for a group, and for "" the whole configuration; None if there is none."""
    found: Any = SweepConfig
    for name in filter(None, key.split(".")):
        known = {each.name: each.type for each in fields(found)} if is_dataclass(found) else {}
        found = known.get(name)
        # A group that may be missing: its fields are those of the dataclass.
        found = next((part for part in getattr(found, "__args__", ()) if is_dataclass(part)), found)
    return found
