"""The interactive plots, as plotly's JSON. They draw the results of the fits, and compute only the points of lines.

Every trace carries its colours for a light and for a dark page in `meta`; script.js sets the right one, and that of the layout.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from sweep.figures.style import HIGHLIGHT, SIZES, colours, loss_label
from sweep.fit import Approach, Fits, IsoflopFit, Refused, allocate
from sweep.report.text import count, scientific

ACCENT = {"light": HIGHLIGHT, "dark": "#ff9a57"}
INK = {"light": "#5b6470", "dark": "#9aa5b1"}
APPROACHES = (  # in the order of their numbers
    {"light": "#8a5a00", "dark": "#e5b93c"},
    {"light": "#0072b2", "dark": "#56b4e9"},
    ACCENT,
    {"light": "#007a5a", "dark": "#4cc9a0"},
    {"light": "#a84f82", "dark": "#e08fc0"},
)
VISIBLE = {"light": (0.0, 0.82), "dark": (0.32, 1.0)}  # the part of the colour map that stands out from either page
MAX_POINTS = 40_000  # of all curves together
MIN_TICKS = 3
BEYOND = 10  # the frontier is drawn to so many times the largest C


def draw_profiles(fits: Fits, fit: IsoflopFit | Refused) -> str:
    """IsoFLOP profiles with their valleys and minima."""
    traces: list[dict[str, Any]] = []
    colour = _Ramp(np.array([profile.budget for profile in fit.profiles]))
    for profile in fit.profiles:
        name, meta = scientific(profile.budget), colour(profile.budget)
        dash, status = ("solid", "") if profile.status == "converged" else ("dot", f" ({profile.status})")
        traces.append(_points(profile.N, profile.loss, name + status, meta, legendgroup=name, customdata=profile.D.tolist()))
        traces[-1]["hovertemplate"] = "N %{x:.3s}, D %{customdata:.3s}<br>loss %{y:.4f}<extra>%{fullData.name}</extra>"
        if profile.coefficients:
            N = np.geomspace(profile.N[0] / 1.15, profile.N[-1] * 1.15, 60)
            traces.append(_line(N, profile.curve(N), name, meta, dash, legendgroup=name, showlegend=False, hoverinfo="skip"))
    good = [profile for profile in fit.profiles if profile.status == "converged"]
    if good:
        at = np.array([(profile.N_opt, profile.loss_opt) for profile in good])
        traces.append(_points(at[:, 0], at[:, 1], "minimum", ACCENT, symbol="star", size=12))
        traces[-1]["hovertemplate"] = "N_opt %{x:.3s}<br>loss %{y:.4f}<extra></extra>"
    N = np.concatenate([profile.N for profile in fit.profiles])
    loss = {"title": {"text": loss_label(fits)}}
    return _figure(traces, _log_axis("parameters N", N.min() / 1.3, N.max() * 1.3, _round_count), loss, "C (FLOPs)")


def draw_curves(fits: Fits, fit: Any) -> str:
    """Training curves against FLOPs, with the envelope of `fit` if that is not None."""
    colour = _Ramp(np.array([curve.N for curve in fits.curves]))
    most = max(20, min(200, MAX_POINTS // len(fits.curves)))
    traces: list[dict[str, Any]] = []
    low = (fit.flops[0] if fit else min(curve.tokens[-1] * curve.flops_per_token for curve in fits.curves)) / 30
    named: set[float] = set()
    for curve in sorted(fits.curves, key=lambda curve: curve.N):
        C = curve.tokens * curve.flops_per_token
        kept = np.flatnonzero(low <= C)
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, most).astype(int))] if len(kept) else kept
        name = count(curve.N)
        traces.append(
            _line(C[kept], curve.loss[kept], name, colour(curve.N), width=1, legendgroup=name, showlegend=curve.N not in named)
        )
        traces[-1]["hovertemplate"] = (
            f"N {_html(name)}, run {_html(curve.run_id)}<br>C %{{x:.3e}}<br>loss %{{y:.4f}}<extra></extra>"
        )
        named.add(curve.N)
    if fit:
        chosen = np.unique(np.linspace(0, len(fit.flops) - 1, 300).astype(int))
        best = fit.N[chosen].tolist()
        traces.append(_line(fit.flops[chosen], fit.loss[chosen], "envelope", ACCENT, width=3, customdata=best))
        traces[-1]["hovertemplate"] = "C %{x:.3e}<br>loss %{y:.4f}<br>best: N %{customdata:.3s}<extra></extra>"
    seen = np.concatenate([curve.loss[curve.tokens * curve.flops_per_token >= low] for curve in fits.curves])
    high = max(float(curve.tokens[-1] * curve.flops_per_token) for curve in fits.curves)
    loss = _log_axis(f"training {loss_label(fits)}", seen.min() * 0.97, np.quantile(seen, 0.98), "{:g}".format)
    return _figure(traces, _log_axis("training FLOPs C", low, high * 1.2, scientific), loss, "N")


def draw_frontier(fits: Fits) -> str:
    """N_opt against C by every approach with its interval, over the runs; dotted beyond the largest run."""
    runs = fits.runs
    traces = [_points(runs.C, runs.N, "runs", INK, size=5, opacity=0.55, customdata=runs.loss.tolist())]
    traces[-1]["text"] = [_html(str(name)) for name in runs.run_id]
    traces[-1]["hovertemplate"] = "%{text}<br>C %{x:.3e}, N %{y:.3s}<br>loss %{customdata:.4f}<extra></extra>"
    low, high = float(runs.C.min()), float(runs.C.max())
    for law in fits.fitted.values():
        # Solid over the runs and dotted beyond, each with the band of its interval.
        name, meta = law.title(), _colour(law)
        for C, dash in ((np.geomspace(low, high, 25), "solid"), (np.geomspace(high, BEYOND * high, 15), "dot")):
            N = [row.N for row in allocate(law, C.tolist())]
            ends = np.array([value.high for value in N] + [value.low for value in N][::-1], dtype=float)
            if np.isfinite(ends).all():
                band = _line(np.concatenate([C, C[::-1]]), ends, name, meta, width=0, legendgroup=name, showlegend=False)
                traces.append(band | {"fill": "toself", "hoverinfo": "skip"})
            best = np.array([value.value for value in N])
            traces.append(_line(C, best, name, meta, dash, width=2.2, legendgroup=name, showlegend=dash == "solid"))
            traces[-1]["hovertemplate"] = f"{name}<br>C %{{x:.3e}}<br>N %{{y:.3s}}<extra></extra>"
    good = [profile for profile in fits.isoflop.profiles if profile.status == "converged"]
    if fits.isoflop.fitted and good:
        at = np.array([(profile.C_opt, profile.N_opt) for profile in good])
        traces.append(_points(at[:, 0], at[:, 1], "minima of profiles", _colour(IsoflopFit), symbol="star", size=11))
    shown = np.concatenate([runs.N, *(law.optimal(np.array([low, BEYOND * high]))[0] for law in fits.fitted.values())])
    C_axis = _log_axis("training FLOPs C", low / 1.3, BEYOND * high, scientific)
    return _figure(traces, C_axis, _log_axis("optimal parameters N", shown.min() / 1.3, shown.max() * 1.3, _round_count), "")


def _colour(approach: Approach | type[Approach]) -> dict[str, str]:
    return APPROACHES[(approach.number - 1) % len(APPROACHES)]


class _Ramp(colours):
    """Colours for positive values on a log scale, for a light and for a dark page."""

    def __call__(self, value: float) -> dict[str, str]:
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        place = self.norm(value)
        return {page: to_hex(colormaps[SIZES](start + (end - start) * place)) for page, (start, end) in VISIBLE.items()}


def _points(x: Any, y: Any, name: str, meta: Any, *, symbol: str = "circle", size: int = 8, **more: Any) -> dict[str, Any]:
    return _trace("markers", x, y, name, meta) | {"marker": {"symbol": symbol, "size": size}} | more


def _line(x: Any, y: Any, name: str, meta: Any, dash: str = "solid", *, width: float = 1.6, **more: Any) -> dict[str, Any]:
    return _trace("lines", x, y, name, meta) | {"line": {"dash": dash, "width": width}} | more


def _trace(mode: str, x: np.ndarray, y: np.ndarray, name: str, meta: dict[str, str]) -> dict[str, Any]:
    """A scatter trace; its values have six digits, which is more than a screen shows."""
    x_short, y_short = ([float(f"{value:.6g}") for value in np.asarray(values, dtype=float)] for values in (x, y))
    return {"type": "scatter", "mode": mode, "x": x_short, "y": y_short, "name": name, "meta": meta}


def _log_axis(title: str, low: float, high: float, label: Callable[[float], str]) -> dict[str, Any]:
    """A log axis from `low` to `high` with ticks at round values, few enough for a phone."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= MIN_TICKS:
            break
    ends = np.log10([low, high]).tolist()
    return {"title": {"text": title}, "type": "log", "range": ends, "tickvals": ticks, "ticktext": list(map(label, ticks))}


def _round_count(value: float) -> str:
    """A round number of parameters, without trailing zeros."""
    return count(value).replace(".00", "").replace(".0", "")


def _figure(traces: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], legend: str) -> str:
    """JSON of a figure, safe inside a <script>; plotly checks the names and values of all attributes."""
    from plotly.graph_objects import Figure

    layout = {"xaxis": x, "yaxis": y, "legend": {"title": {"text": legend}}, "hovermode": "closest"}
    figure = Figure(data=traces, layout=layout).to_plotly_json()
    figure["layout"].pop("template", None)
    return json.dumps(figure, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _html(text: str) -> str:
    """`text` with the HTML and the templates that plotly reads in texts made harmless."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")
