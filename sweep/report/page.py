"""The report: one HTML file that needs no network and no other file. Only its interactive plots need scripts."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.figures.style import SVG_DPI, loss_unit
from sweep.files import write_atomically
from sweep.fit import APPROACHES, Allocation, Fits
from sweep.report import plots, text
from sweep.report.checklist import checklist, conventions
from sweep.report.origin import Origin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_FILE = 10e6  # bytes
MAX_SVG = 2.5e5  # bytes; a larger figure is embedded as pixels
MAX_EXCLUDED = 300  # rows of a table
DISTINCT = 1.1  # optimal sizes nearer than this factor are one answer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The optima at one budget by each approach.

    Attributes:
        C: the budget.
        reach: C over the largest that a run took.
        rows: one for each approach that was fitted.
        verdict: whether they agree, in words.
        differ: the columns in which intervals of two approaches do not overlap.
    """

    C: float
    reach: float
    rows: tuple[Allocation, ...]
    verdict: str
    differ: tuple[str, ...]


def write_report(fits: Fits, origin: Origin, options: FitConfig, path: Path) -> Path:
    """Write the report of `fits`, which were made with `options`, to the file `path`. Raises InputError if no law could be
    fitted, or the page would take 10 MB or more."""
    page = render(fits, origin, options).encode()
    if len(page) >= MAX_FILE:
        size = f"{len(page) / 1e6:.1f} MB, but at most 10 MB are allowed"
        raise InputError(f"the report would take {size}; fit fewer runs or curves")
    write_atomically(path, page)
    return path


def render(fits: Fits, origin: Origin, options: FitConfig) -> str:
    """The page; see `write_report`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    from sweep.figures import figures_of

    environment = Environment(
        loader=PackageLoader("sweep.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    if origin.hidden is not None:
        environment.finalize = partial(text.without_places, hidden=origin.hidden)
    environment.filters |= {"number": text.number, "estimate": text.estimate, "sentence": text.sentence}
    figures = {name: _uri_of(figure) for name, figure in figures_of(fits).items()}
    files = Path(__file__).parent / "templates"
    page = environment.get_template("report.html")
    return page.render(
        **facts_of(fits, origin, options),
        exponents=_disagreement([(APPROACHES[name].title(), law.a) for name, law in fits.fitted.items()]),
        figures=figures,
        interactive=_interactive(fits),
        extrapolation=fits.extrapolation.each if fits.extrapolation.fitted else None,  # type: ignore[union-attr]
        style=Markup((files / "style.css").read_text(encoding="utf-8")),
        script=Markup((files / "script.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def facts_of(fits: Fits, origin: Origin, options: FitConfig) -> dict[str, Any]:
    """What a report tells in any format, by the names that the templates use."""
    return {
        "fits": fits,
        "fitted": fits.fitted,
        "refused": fits.refused,
        "unit": loss_unit(fits),
        "conventions": conventions(options, origin),
        "titles": {name: approach.title() for name, approach in APPROACHES.items()},
        "methods": {name: approach.method for name, approach in APPROACHES.items()},
        "answers": _answers(fits),
        "headline": fits.verdict,
        "excluded": fits.runs.excluded[:MAX_EXCLUDED],
        "origin": origin,
        "costs": None if isinstance(origin.cost, str) else origin.cost,
        "checklist": checklist(fits, options, origin),
    }


def _answers(fits: Fits) -> tuple[Answer, ...]:
    largest = float(fits.runs.C.max())
    found = []
    for C in dict.fromkeys(row.C for row in fits.answers.allocations):
        rows = tuple(row for row in fits.answers.allocations if row.C == C)
        held_out = [row for row in rows if not APPROACHES[row.approach].reads_curves]  # a training loss is another quantity
        columns = {
            "N": [(APPROACHES[row.approach].title(), row.N) for row in rows],
            "D": [(APPROACHES[row.approach].title(), row.D) for row in rows],
            "D / N": [(APPROACHES[row.approach].title(), row.tokens_per_parameter) for row in rows],
            "loss": [(APPROACHES[row.approach].title(), row.loss) for row in held_out if row.loss],
        }
        apart = {name: pairs for name, column in columns.items() if (pairs := _disagreement(column))}
        found.append(Answer(C=C, reach=C / largest, rows=rows, verdict=_verdict(rows, apart), differ=tuple(apart)))
    return tuple(found)


def _disagreement(named: Sequence[tuple[str, Any]]) -> list[str]:
    """Which pairs of estimates have intervals that do not overlap, in words."""
    return [f"{one} and {other}" for (one, left), (other, right) in combinations(named, 2) if left.overlaps(right) is False]


def _verdict(rows: Sequence[Allocation], apart: Mapping[str, Sequence[str]]) -> str:
    if len(rows) == 1:
        return f"Only {APPROACHES[rows[0].approach].title()} could be fitted, so nothing checks it."
    sizes = [row.N.value for row in rows]
    factor = max(sizes) / min(sizes)
    spread = f"The approaches' N lie within a factor of {factor:.2g}"
    if factor < DISTINCT:
        spread = f"The approaches agree on N to within {text.share(factor - 1)}"
    told = [f"the intervals of {name} do not overlap between {', nor between '.join(pairs)}" for name, pairs in apart.items()]
    return f"{spread}; {'; '.join(told) or 'all intervals overlap'}."


def _interactive(fits: Fits) -> dict[str, Markup]:
    """Plotly's JSON by the name of the plot."""
    found = {}
    if fits.isoflop.profiles:
        found["profiles"] = plots.draw_profiles(fits, fits.isoflop)
    if fits.curves:
        found["curves"] = plots.draw_curves(fits, fits.fitted.get("envelope"))
    found["frontier"] = plots.draw_frontier(fits)
    return {name: Markup(figure) for name, figure in found.items()}  # `plots` escapes it


def _uri_of(figure: "Figure") -> str:
    """The figure as a data URI: as SVG, or where that is large as WebP, which takes half of what PNG does."""
    import matplotlib.pyplot as plt

    kept, kind = io.BytesIO(), "svg+xml"
    figure.savefig(kept, format="svg", metadata={"Date": None}, facecolor="white", dpi=SVG_DPI)
    if kept.tell() > MAX_SVG:
        kept, kind = io.BytesIO(), "webp"
        figure.savefig(kept, format="webp", dpi=SVG_DPI, facecolor="white", pil_kwargs={"quality": 90})
    plt.close(figure)
    return data_uri(kept.getvalue(), kind)


def data_uri(content: bytes, kind: str) -> str:
    """An image of this kind as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
