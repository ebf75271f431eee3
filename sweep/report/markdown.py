"""The report as Markdown, for an issue, a wiki or a repository: the same answer, with the figures as files beside it."""

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sweep.config import FitConfig
from sweep.figures.style import save
from sweep.files import write_atomically
from sweep.fit import Fits
from sweep.report import text
from sweep.report.origin import Origin
from sweep.report.page import facts_of
from sweep.words import counted

SIGNS = re.compile(r"([\\`*_{}\[\]<>|#~$])")  # that Markdown, or GitHub's mathematics, would take for its own


def write_markdown(fits: Fits, origin: Origin, options: FitConfig, path: Path) -> list[Path]:
    """Write the report of `fits`, which were made with `options`, to the file `path`, and its figures as PNG beside it; the
    paths written. Raises InputError if no law could be fitted, or they cannot be written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from sweep.figures import figures_of

    environment = Environment(
        loader=PackageLoader("sweep.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escaped,
    )
    environment.filters |= {"number": _number, "estimate": _estimate, "sentence": _sentence, "counted": counted}
    figures = {name: save(figure, path.parent / name, ["png"])[0] for name, figure in figures_of(fits).items()}
    names = {name: Markup(file.name) for name, file in figures.items()}
    page = environment.get_template("report.md").render(**facts_of(fits, origin, options), figures=names)
    write_atomically(path, re.sub(r"\n{3,}", "\n\n", page))
    return [path, *figures.values()]


def _escaped(value: Any) -> str:
    return value if isinstance(value, Markup) else SIGNS.sub(r"\\\1", " ".join(str(value).split()))


def _sentence(value: Any) -> str:
    return str(Markup(text.sentence(value)).unescape())


def _number(value: float | None, kind: str = "number") -> str:
    return str(text.number(value, kind).striptags())


def _estimate(value: Any, kind: str = "number") -> str:
    return str(text.estimate(value, kind).striptags())
