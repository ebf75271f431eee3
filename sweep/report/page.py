"""The report: one HTML file that needs no network, no other file, and, but for its interactive plots, no script."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.figures.style import loss_unit
from sweep.files import write_atomically
from sweep.fit import Allocation, EnvelopeFit, Fits, LawError
from sweep.fit.approaches.isoflop import IsoflopFit, TooFewProfiles
from sweep.report import plots, text
from sweep.report.checklist import checklist, conventions
from sweep.report.origin import Origin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_FILE = 10e6  # bytes
LARGEST_SVG = 5e5  # bytes; a figure of more lines than that is embedded as PNG
MAX_EXCLUDED = 300  # rows of a table
TITLES = {"envelope": "Approach 1", "isoflop": "Approach 2", "parametric": "Approach 3"}
METHODS = {"envelope": "envelope of the training curves", "isoflop": "IsoFLOP profiles", "parametric": "parametric surface"}
PREFERRED = ("parametric", "isoflop", "envelope")  # whose answer heads the page: one that knows E reaches furthest
DISTINCT = 1.1  # optimal sizes nearer than this factor are one answer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the approaches say at one budget.

    Attributes:
        C: the budget.
        reach: C over the largest that a run took.
        rows: one for each approach that was fitted.
        verdict: whether they agree, in words.
        agree: whether all intervals of N overlap.
    """

    C: float
    reach: float
    rows: tuple[Allocation, ...]
    verdict: str
    agree: bool


def require_packages() -> None:
    """Raises InputError if what a report is made with is not installed."""
    from importlib.util import find_spec

    for package in ("jinja2", "plotly"):
        if find_spec(package) is None:
            raise InputError(f"a report needs {package}, which is not installed; pip install {package}")


def write_report(fits: Fits, origin: Origin, options: FitConfig, path: Path) -> Path:
    """Write the report of `fits` to `path`.

    Args:
        fits: as `sweep.fit.fit_all` returns them.
        origin: what is known of the runs beside.
        options: what the fits were asked to do.
        path: of the file.

    Raises:
        InputError: if no law could be fitted, or the page would not be under 10 MB.
    """
    page = render(fits, origin, options).encode()
    if len(page) >= LARGEST_FILE:
        raise InputError(f"the report would take {len(page) / 1e6:.1f} MB, and 10 MB are the most; fit fewer runs or curves")
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
    environment.filters |= {"number": text.number, "estimate": text.estimate, "sentence": text.sentence}
    figures = {name: _data_uri(figure) for name, figure in figures_of(fits).items()}
    answers = _answers(fits)
    files = Path(__file__).parent / "templates"
    laws = {"envelope": fits.envelope, "isoflop": fits.isoflop, "parametric": fits.parametric}
    return environment.get_template(
        "report.html"
    ).render(
        fits=fits,
        fitted={name: law for name, law in laws.items() if not isinstance(law, LawError)},
        refused={name: law for name, law in laws.items() if isinstance(law, LawError)},
        unit=loss_unit(fits),
        conventions=conventions(options, origin),
        titles=TITLES,
        methods=METHODS,
        answers=answers,
        headline=_headline(answers[0]) if answers else None,
        exponents=_disagreement([(TITLES[name], laws[name].a) for name in laws if not isinstance(laws[name], LawError)]),  # type: ignore[union-attr]
        figures=figures,
        interactive=_interactive(fits),
        extrapolation=None if isinstance(fits.extrapolation, LawError) else fits.extrapolation,
        excluded=fits.runs.excluded[:MAX_EXCLUDED],
        origin=origin,
        costs=None if isinstance(origin.cost, str) else origin.cost,
        checklist=checklist(fits, options, origin),
        style=Markup((files / "style.css").read_text()),
        script=Markup((files / "script.js").read_text()),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def _answers(fits: Fits) -> tuple[Answer, ...]:
    largest = float(fits.runs.C.max())
    found = []
    for C in dict.fromkeys(row.C for row in fits.answers.allocations):
        rows = tuple(row for row in fits.answers.allocations if row.C == C)
        verdict = _disagreement([(TITLES[row.approach], row.N) for row in rows])
        found.append(Answer(C=C, reach=C / largest, rows=rows, verdict=_verdict(rows, verdict), agree=not verdict))
    return tuple(found)


def _headline(answer: Answer) -> Allocation:
    return min(answer.rows, key=lambda row: PREFERRED.index(row.approach))


def _disagreement(named: Sequence[tuple[str, Any]]) -> list[str]:
    """Which pairs of estimates have intervals that do not overlap, in words."""
    apart = []
    for (one, left), (other, right) in combinations(named, 2):
        if None not in (left.low, left.high, right.low, right.high) and (left.high < right.low or right.high < left.low):
            apart.append(f"{one} and {other}")
    return apart


def _verdict(rows: Sequence[Allocation], apart: Sequence[str]) -> str:
    sizes = [row.N.value for row in rows]
    if len(rows) == 1:
        return f"Only {TITLES[rows[0].approach]} could be fitted, so nothing checks it."
    factor = max(sizes) / min(sizes)
    if factor < DISTINCT:
        spread = f"The approaches agree on N to within {text.share(factor - 1)}"
    else:
        spread = f"The approaches' N lie within a factor of {factor:.2g}"
    return f"{spread}; " + (
        f"the intervals of {', and of '.join(apart)} do not overlap." if apart else "all intervals overlap."
    )


def _interactive(fits: Fits) -> dict[str, Markup]:
    """Plotly's JSON by the name of the plot."""
    found = {}
    if isinstance(fits.isoflop, IsoflopFit | TooFewProfiles) and fits.isoflop.profiles:
        found["profiles"] = plots.draw_profiles(fits, fits.isoflop)
    if fits.curves:
        found["curves"] = plots.draw_curves(fits, fits.envelope if isinstance(fits.envelope, EnvelopeFit) else None)
    found["frontier"] = plots.draw_frontier(fits)
    return {name: Markup(figure) for name, figure in found.items()}  # `plots` escapes it


def _data_uri(figure: "Figure") -> str:
    """The figure as a data URI: as SVG, or where that is large as PNG."""
    import matplotlib.pyplot as plt

    kept, kind = io.BytesIO(), "svg+xml"
    figure.savefig(kept, format="svg", metadata={"Date": None}, facecolor="white")
    if kept.tell() > LARGEST_SVG:
        kept, kind = io.BytesIO(), "png"
        figure.savefig(kept, format="png", dpi=110, facecolor="white")
    plt.close(figure)
    return f"data:image/{kind};base64,{base64.b64encode(kept.getvalue()).decode()}"
