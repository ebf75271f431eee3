"""One page of a paper's experiments: its statements beside what came out here, and the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep import __version__
from sweep.config.training import AboutConfig
from sweep.files import write_atomically, writing
from sweep.report.page import data_uri

MAX_FIGURES = 4
FIRST = ("experiment", "compare", "exponents", "isoflop", "parametric", "frontier")  # in this order, before the others


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One experiment.

    Attributes:
        name: of the experiment.
        about: what it repeats.
        found: its compare.json; empty if it has none.
        figures: its figures, as PNG files.
    """

    name: str
    about: AboutConfig
    found: Mapping[str, Any]
    figures: Sequence[Path]


def write_gallery(paper: str, entries: Sequence[Shown], path: Path) -> None:
    """The page of all experiments, one HTML file. Raises InputError if it cannot be written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sweep.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    shown = [
        {
            "name": each.name,
            "about": each.about,
            "claims": each.found.get("claims", []),
            "text": each.found.get("text", []),
            "differences": ((each.found.get("labels") or {}).get("comparison") or {}).get("differences", []),
            "exponents": (each.found.get("labels") or {}).get("exponents", []),
            "figures": [(figure.stem, data_uri(figure.read_bytes(), "png")) for figure in _chosen(each.figures)],
        }
        for each in entries
    ]
    page = environment.get_template("gallery.html").render(paper=paper, entries=shown, style=Markup(style), version=__version__)
    with writing(path.parent):
        write_atomically(path, page)


def _chosen(figures: Sequence[Path]) -> list[Path]:
    order = {name: place for place, name in enumerate(FIRST)}
    return sorted(figures, key=lambda path: (order.get(path.stem, len(order)), path.stem))[:MAX_FIGURES]
