"""Fields by their names on the command line: values taken as they are typed, and what to say of a name that is no field."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from sweep.config.sweep import SweepConfig

TEXT = (str, str | None)


def literal(overrides: Sequence[str]) -> list[str]:
    """`overrides` with quotes around values of text fields that Hydra's grammar does not take, or takes for something else:
    paths with blanks, parentheses or umlauts, expressions, 1e3. What Hydra's users write on purpose means what it does there:
    null, quotes, and `${…}`, as in ${oc.env:SCRATCH}/store. Hydra names what is wrong in the other fields."""
    return [_quoted(override) for override in overrides]


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
    if not equals or _type_of(key.lstrip("+")) not in TEXT:
        return override
    try:
        parsed = OverridesParser.create().parse_override(override)
        on_purpose = value == "null" or value[:1] in ("'", '"')
        if not parsed.is_sweep_override() and (on_purpose or parsed.value() == value):
            return override
    except HydraException:
        pass
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _type_of(key: str) -> Any:
    """The type of a field; a dataclass for a group, and for "" the whole configuration; None if there is none."""
    found: Any = SweepConfig
    for name in filter(None, key.split(".")):
        known = {each.name: each.type for each in fields(found)} if is_dataclass(found) else {}
        found = known.get(name)
        # A group that may be missing: its fields are those of the dataclass.
        found = next((part for part in getattr(found, "__args__", ()) if is_dataclass(part)), found)
    return found
