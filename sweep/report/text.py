"""Numbers for a reader: short on the page, with all their digits in the <data> element around them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from sweep.fit import Estimate

ABSENT = "–"
PATH = re.compile(r"(?<![\w.~/:<…])(?:file://)?(?:~\w*)?(?:/[^\s/'\"<>,;()]+){2,}/?")  # absolute, in a sentence
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SYMBOL = re.compile(r"a (=|along|in|under)|d²|alpha|beta")
LETTERS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def without_places(value: Any, hidden: Sequence[str] = ()) -> Any:
    """`value`, and if it is text, each absolute path in it without the folders on the way; `hidden` are directories whose names
    may have blanks."""
    if not isinstance(value, str) or isinstance(value, Markup) or "/" not in value or value.startswith("data:"):
        return value
    for directory in sorted(hidden, key=len, reverse=True):
        if directory.count("/") > 1:
            value = value.replace(directory, "…")
    return PATH.sub(lambda found: f"…/{found.group().rstrip('/').rpartition('/')[2]}", value)


def values_without_places(value: Any) -> Any:
    """Values of a configuration in which every absolute path is its last part."""
    if isinstance(value, Mapping):
        return {key: values_without_places(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [values_without_places(entry) for entry in value]
    if isinstance(value, str) and value.startswith(("/", "~", "file:/")):
        return f"…/{value.rstrip('/').rpartition('/')[2]}"
    return without_places(value)


def count(value: float) -> str:
    """Parameters or tokens: 187 k, 5.17 M, 1.2 B, 4.1 T."""
    if not 1 <= abs(value) < 1e16:
        return scientific(value)
    unit, letter = next(((unit, letter) for unit, letter in LETTERS if abs(value) >= 0.9995 * unit), (1.0, ""))
    return f"{_three_digits(value / unit)}\u202f{letter}" if letter else _three_digits(value)


def scientific(value: float) -> str:
    """FLOPs: 5.79 × 10¹²."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    mantissa = mantissa.rstrip("0").rstrip(".")
    return power if mantissa == "1" else f"{mantissa}\u202f×\u202f{power}"


def plain(value: float) -> str:
    """Anything else, to three digits: 27.7, 0.123, 1,240."""
    return scientific(value) if value and not 1e-3 <= abs(value) < 1e6 else _three_digits(value)


def share(value: float) -> str:
    """12 %."""
    return f"{value:.0%}".replace("%", "\u202f%")


KINDS: dict[str, Callable[[float], str]] = {
    "count": count,
    "flops": scientific,
    "loss": "{:z.3f}".format,
    "exponent": "{:z.3f}".format,
    "change": "{:+z.4f}".format,
    "share": share,
    "number": plain,
}


def number(value: float | None, kind: str = "number") -> Markup:
    """`value` in the style of `kind`, one of `KINDS`; a dash for None."""
    if value is None or math.isnan(value):
        return Markup(ABSENT)
    value = float(value)
    shown = KINDS[kind](value) if math.isfinite(value) else "∞" if value > 0 else "−∞"
    return Markup('<data value="{}">{}</data>').format(repr(value), shown)


def estimate(value: Estimate | None, kind: str = "number") -> Markup:
    """A value and, in small, its interval."""
    if value is None:
        return Markup(ABSENT)
    if value.low is None or value.high is None:
        return number(value.value, kind) + Markup(' <span class="interval">{}</span>').format(value.note or "no interval")
    ends = Markup("{} to {}").format(number(value.low, kind), number(value.high, kind))
    return number(value.value, kind) + Markup(' <span class="interval">({})</span>').format(ends)


def sentence(text: Any) -> Markup:
    """`text` with a capital, unless it begins with a symbol such as a = 0.5, and a full stop."""
    words = str(text).strip()
    first = words if SYMBOL.match(words) else words[:1].upper() + words[1:]
    return escape(first + ("" if words.endswith((".", "!", "?")) else "."))


def _three_digits(value: float) -> str:
    if abs(value) >= 999.5:
        return f"{value:z,.0f}"
    digits = max(0, 2 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:z.{digits}f}"
