"""The figures of the approaches. They draw the results of the fits, and compute only the points of lines."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.figures import style
from sweep.figures.style import C_LABEL, D_LABEL, HIGHLIGHT, N_LABEL, SIZES
from sweep.fit import EnvelopeFit, Estimate, Fits, IsoflopFit, ParametricFit, PowerLaw, allocate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_envelope(fits: Fits, fit: EnvelopeFit) -> "Figure":
    """Training curves against FLOPs with their envelope, and the power laws through it (Chinchilla, Fig. 2)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, (curves, left, right) = style.panels(3, 14, width_ratios=(1.3, 1, 1))
    colour = style.colours(np.array([curve.N for curve in fits.curves]))
    for curve in sorted(fits.curves, key=lambda curve: -curve.N):
        C, shade = curve.tokens * curve.flops_per_token, colour(curve.N)
        curves.plot(C, curve.loss, color=shade, linewidth=0.7, alpha=0.8, rasterized=True)
    curves.plot(fit.flops, fit.loss, color=HIGHLIGHT, linewidth=1.8, label="envelope")
    low = fit.flops[0] / 30
    seen = [curve.loss[curve.tokens * curve.flops_per_token >= low] for curve in fits.curves]
    curves.set(xscale="log", yscale="log", xlabel=C_LABEL, ylabel=f"training {style.loss_label(fits)}", title="training curves")
    curves.set(xlim=(low, fit.flops[-1] * 1.3), ylim=(fit.loss.min() * 0.96, np.quantile(np.concatenate(seen), 0.98)))
    # Losses span less than a decade, so their log axis has plain numbers.
    curves.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)))
    curves.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    curves.yaxis.set_minor_formatter(NullFormatter())
    figure.colorbar(colour.map, ax=curves, label=N_LABEL)
    curves.legend(loc="upper right")
    for axis, points, law, exponent, label in (
        (left, fit.N, fit.N_law, fit.a, N_LABEL),
        (right, fit.D, fit.D_law, fit.b, D_LABEL),
    ):
        axis.plot(fit.flops, points, ".", color="0.45", markersize=3, label="best at each C", rasterized=True)
        _power_law(axis, law, exponent, fit.flops, label, "a" if axis is left else "b", fits.level)
    figure.suptitle(f"{fit.title()}: {fit.method}")
    return figure


def draw_isoflop(fits: Fits, fit: Any) -> "Figure":
    """IsoFLOP profiles with their parabolas and minima, and the power laws through the minima (Chinchilla, Fig. 3)."""
    figure, (valley, left, right) = style.panels(3, 14, width_ratios=(1.3, 1, 1))
    colour = style.colours(np.array([profile.budget for profile in fit.profiles]))
    for profile in fit.profiles:
        converged, shade = profile.status == "converged", colour(profile.budget)
        label = f"{profile.budget:.2g}" + ("" if converged else f" ({profile.status})")
        edge: dict[str, Any] = {"markersize": 5, "markeredgecolor": "0.3", "markeredgewidth": 0.4}
        valley.plot(profile.N, profile.loss, "o", color=shade, label=label, **edge)
        if profile.coefficients:
            N = np.geomspace(profile.N[0] / 1.15, profile.N[-1] * 1.15, 100)
            valley.plot(N, profile.parabola(N), "-" if converged else ":", color=shade, linewidth=1.2)
    good = [profile for profile in fit.profiles if profile.status == "converged"]
    if good:
        minima = [profile.N_opt for profile in good], [profile.loss_opt for profile in good]
        valley.plot(*minima, "*", color=HIGHLIGHT, markersize=11, markeredgecolor="white", label="minimum")
    valley.set(xscale="log", xlabel=N_LABEL, ylabel=style.loss_label(fits), title="loss at equal FLOPs")
    valley.legend(title=C_LABEL, fontsize=7, title_fontsize=7, loc="upper right")
    low, high = valley.get_ylim()
    valley.set_ylim(low, high + 0.35 * (high - low))  # room for the legend above the data
    budgets = np.array([profile.budget for profile in good])
    for axis, name, label in ((left, "N_opt", N_LABEL), (right, "D_opt", D_LABEL)):
        for profile in good:
            axis.plot(profile.budget, getattr(profile, name), "o", color=colour(profile.budget), markeredgecolor="0.3")
        if fit.fitted:
            law, exponent = (fit.N_law, fit.a) if name == "N_opt" else (fit.D_law, fit.b)
            _power_law(axis, law, exponent, budgets, label, "a" if axis is left else "b", fits.level)
        else:
            axis.text(0.5, 0.5, "too few minima\nfor a power law", ha="center", va="center", transform=axis.transAxes)
    figure.suptitle(f"{IsoflopFit.title()}: {IsoflopFit.method}")
    return figure


def draw_parametric(fits: Fits, fit: ParametricFit) -> "Figure":
    """Contours of the fitted loss over C and N with the efficient frontier, and its slices (Chinchilla, Fig. 4)."""
    figure, (contour, slices) = style.panels(2, 11)
    runs = fits.runs
    C = np.geomspace(runs.C.min() / 2, runs.C.max() * 4, 200)
    N = np.geomspace(runs.N.min() / 2, runs.N.max() * 2, 200)
    tokens = fit.surface.compute.tokens
    surface = fit.predict(N[:, None], tokens(N[:, None], C))
    # Levels at even steps of log loss above E, so that they do not crowd where the surface is steep.
    seen = np.array([surface[:, (runs.C.min() <= C)].min(), runs.loss.max()])
    levels = fit.E.value + np.geomspace(seen[0] - fit.E.value, seen[1] - fit.E.value, 12)
    lines = contour.contour(C, N, surface, levels=levels, cmap=SIZES + "_r", linewidths=1)
    contour.clabel(lines, fmt="%.2f", fontsize=7)
    contour.scatter(runs.C, runs.N, s=14, c="0.35", label="runs", zorder=3, rasterized=style.dense(len(runs)))
    contour.plot(C, fit.optimal(C)[0], color=HIGHLIGHT, linewidth=2, label=f"efficient frontier, $a$ = {style.interval(fit.a)}")
    contour.set(xscale="log", yscale="log", xlabel=C_LABEL, ylabel=N_LABEL, title="fitted loss", ylim=(N[0], N[-1]))
    contour.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")

    colour = style.colours(runs.C)
    budgets = np.unique(runs.budget[np.isfinite(runs.budget)])
    for budget in budgets if len(budgets) else np.geomspace(runs.C.min(), runs.C.max(), 6):
        slices.plot(N, fit.predict(N, tokens(N, budget)), color=colour(budget), linewidth=1)
    slices.scatter(runs.N, runs.loss, s=16, color=[colour(C) for C in runs.C], **style.markers(len(runs)))
    N_opt, D_opt = fit.optimal(C)
    slices.plot(N_opt, fit.predict(N_opt, D_opt), color=HIGHLIGHT, linewidth=2, label="efficient frontier")
    margin = 0.05 * np.ptp(runs.loss)
    slices.set(xscale="log", xlabel=N_LABEL, ylabel=style.loss_label(fits), title="slices of equal FLOPs", xlim=(N[0], N[-1]))
    slices.set_ylim(runs.loss.min() - 2 * margin, runs.loss.max() + margin)
    figure.colorbar(colour.map, ax=slices, label=C_LABEL)
    slices.legend(loc="upper right", fontsize=8)
    law = r"$L = %.3g + %.3g\,/\,N^{%.3g} + %.3g\,/\,D^{%.3g}$"
    figure.suptitle(f"{fit.title()}: " + law % tuple(e.value for e in (fit.E, fit.A, fit.alpha, fit.B, fit.beta)))
    return figure


def draw_frontier(fits: Fits) -> "Figure":
    """N_opt and D_opt against C by each approach that was fitted, with intervals; dashed beyond the largest run."""
    figure, axes = style.panels(2, 11)
    runs = fits.runs
    spans = ((np.geomspace(runs.C.min(), runs.C.max(), 30), "-"), (np.geomspace(runs.C.max(), 10 * runs.C.max(), 15), "--"))
    for axis, name, label in zip(axes, ("N", "D"), (N_LABEL, D_LABEL), strict=True):
        axis.scatter(runs.C, getattr(runs, name), s=10, color="0.6", label="runs", rasterized=style.dense(len(runs)))
        for law in fits.fitted.values():
            colour = style.approach_colour(law.number)
            for C, dash in spans:
                found = [getattr(row, name) for row in allocate(law, C.tolist())]
                axis.plot(C, [one.value for one in found], dash, color=colour, label=law.title() if dash == "-" else None)
                if all(one.low is not None for one in found):
                    low, high = ([getattr(one, end) for one in found] for end in ("low", "high"))
                    axis.fill_between(C, low, high, color=colour, alpha=0.13, linewidth=0)
        axis.set(xscale="log", yscale="log", xlabel=C_LABEL, ylabel=f"optimal {label}")
    axes[0].legend(loc="upper left", fontsize=8)
    figure.suptitle(f"The compute-optimal frontier by each approach, with {fits.level:.0%} intervals")
    return figure


def _power_law(axis: "Axes", law: PowerLaw, exponent: Estimate, flops: np.ndarray, label: str, name: str, level: float) -> None:
    """The law's line, and its dashed extension a decade beyond its points."""
    inside = np.geomspace(flops.min(), flops.max(), 50)
    beyond = np.geomspace(flops.max(), flops.max() * 10, 50)
    law_label = rf"${label.split('$')[1]} \propto C^{{{name}}}$, ${name}$ = {style.interval(exponent)}"
    axis.plot(inside, law(inside), color=HIGHLIGHT, label=law_label)
    axis.plot(beyond, law(beyond), "--", color=HIGHLIGHT)
    axis.set(xscale="log", yscale="log", xlabel=C_LABEL, ylabel=f"optimal {label}", title=f"optimal {label.split(' $')[0]}")
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend above the points
    axis.legend(loc="upper left", fontsize=8, title=f"{level:.0%} interval", title_fontsize=7)
