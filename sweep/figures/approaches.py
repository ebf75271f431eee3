"""The figures of the approaches. They draw the results of the fits, and compute only the points of lines."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.figures import style
from sweep.figures.style import C_LABEL, D_LABEL, HIGHLIGHT, N_LABEL
from sweep.fit import Approach, EnvelopeFit, Estimate, Fits, IsoflopFit, ParametricFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEYOND = 10  # laws are drawn to so many times the largest C
LEVELS = 12  # of loss, as contours
PART_COLOURS, PART_DASHES = ("#0072b2", "#009e73", "#cc79a7"), ((0, (1.5, 1.5)), (0, (6, 2)), (0, (6, 2, 1.5, 2)))


def draw_envelope(fits: Fits, fit: EnvelopeFit) -> "Figure":
    """Training curves against FLOPs with their envelope, and the power laws through it (Chinchilla, Fig. 2)."""
    figure, (curves, left, right) = style.panels(3, 14, 4.8, width_ratios=(1.3, 1, 1))
    colour = style.colours(np.array([curve.N for curve in fits.curves]))
    ordered = sorted(fits.curves, key=lambda curve: -curve.N)
    C = [curve.tokens * curve.flops_per_token for curve in ordered]
    style.draw_curves(curves, C, ordered, colour)
    curves.plot(fit.flops, fit.loss, color=HIGHLIGHT, linewidth=1.8, label="envelope")
    low = fit.flops[0] / 30
    seen = np.concatenate([curve.loss[flops >= low] for flops, curve in zip(C, ordered, strict=True)])
    curves.set(xlabel=C_LABEL, ylabel=f"training {style.loss_label(fits)}", title="training curves")
    curves.set(xlim=(low, fit.flops[-1] * 1.3), ylim=(min(fit.loss.min(), seen.min()) * 0.98, np.quantile(seen, 0.98)))
    style.log_axes(curves, plain="y")
    colour.bar(curves, N_LABEL)
    style.legend_below(curves)
    for axis, points, exponent, label in ((left, fit.N, fit.a, N_LABEL), (right, fit.D, fit.b, D_LABEL)):
        axis.plot(fit.flops, points, ".", color="0.45", markersize=3, label="best at each C", rasterized=True)
        _draw_power_law(axis, fit, exponent, fit.flops, label, "a" if axis is left else "b")
    figure.suptitle(f"{fit.title()}: {fit.method}")
    return figure


def draw_thirds(fits: Fits, fit: EnvelopeFit) -> "Figure":
    """The envelope's sizes with power laws through its first, middle and last third of log C, and the law through all of it
    (Chinchilla, Fig. A5)."""
    figure, axis = style.panels(1, 7, 5)
    axis.plot(fit.flops, fit.N, ".", color="0.55", markersize=3, label="best at each C", rasterized=True)
    everywhere = np.geomspace(fit.flops[0], fit.flops[-1] * BEYOND, 60)
    label = f"all of $C$: $a$ = {style.interval(fit.a)}"
    style.draw_law(axis, fit, everywhere, "N", colour=HIGHLIGHT, label=label)
    edges = np.geomspace(fit.flops[0], fit.flops[-1], 4)
    parts = zip(
        ("first", "middle", "last"), fit.curvature.thirds, edges[:-1], edges[1:], PART_COLOURS, PART_DASHES, strict=True
    )
    for name, exponent, low, high, colour, dash in parts:
        inside = (fit.flops >= low * (1 - 1e-9)) & (fit.flops <= high * (1 + 1e-9))
        if not np.isfinite(exponent.value) or not inside.any():
            continue
        # A line of least squares goes through the mean of its points.
        C, N = (np.exp(np.log(values[inside]).mean()) for values in (fit.flops, fit.N))
        own, on = np.array([low, high]), np.array([high, everywhere[-1]])
        label = f"{name} third: $a$ = {style.interval(exponent)}"
        axis.plot(own, N * (own / C) ** exponent.value, color=colour, linewidth=3, label=label, solid_capstyle="butt")
        axis.plot(on, N * (on / C) ** exponent.value, color=colour, linewidth=1.2, linestyle=dash)
    for edge in edges[1:-1]:
        axis.axvline(edge, color="0.8", linewidth=0.8, zorder=0)
    axis.set(xlabel=C_LABEL, ylabel=f"optimal {N_LABEL}", title=_bend(fit))
    style.log_axes(axis)
    axis.set_ylim(fit.N.min() / 3, fit.N_law(everywhere[-1]) * 10)
    style.legend_below(axis, ncols=2)
    return figure


def draw_isoflop(fits: Fits, fit: Any) -> "Figure":
    """IsoFLOP profiles with their valleys and minima, and the power laws through the minima (Chinchilla, Fig. 3)."""
    from sweep.figures.ticks import scientific

    figure, (valley, left, right) = style.panels(3, 14, 4.8, width_ratios=(1.3, 1, 1))
    colour = style.colours(np.array([profile.budget for profile in fit.profiles]))
    edge: dict[str, Any] = {"markeredgecolor": "0.3", "markeredgewidth": 0.4}
    good = [profile for profile in fit.profiles if profile.status == "converged"]
    bad = [profile for profile in fit.profiles if profile.status != "converged"]
    for profiles, dash, label in ((good, "-", "profile"), (bad, ":", "no minimum between its sizes")):
        for profile in profiles:
            shade = colour(profile.budget)
            valley.plot(profile.N, profile.loss, "o", color=shade, markersize=4, **edge)
            if profile.coefficients:
                N = np.geomspace(profile.N[0] / 1.15, profile.N[-1] * 1.15, 100)
                valley.plot(
                    N, profile.curve(N), dash, color=shade, linewidth=1.2, label=label if profile is profiles[0] else None
                )
    if good:
        minima = [profile.N_opt for profile in good], [profile.loss_opt for profile in good]
        valley.plot(*minima, "*", color=HIGHLIGHT, markersize=11, markeredgecolor="white", label="minimum", zorder=4)
    title = "loss at equal FLOPs"
    if not colour.several:
        title += f", $C$ = {scientific(fit.profiles[0].budget)}"
    losses = np.concatenate([profile.loss for profile in fit.profiles])
    margin = 0.05 * np.ptp(losses) + 1e-9
    valley.set(xlabel=N_LABEL, ylabel=style.loss_label(fits), title=title)
    valley.set_ylim(min([losses.min(), *(profile.loss_opt for profile in good)]) - 2 * margin, losses.max() + 2 * margin)
    style.log_axes(valley, "x")
    colour.bar(valley, C_LABEL)
    style.legend_below(valley, ncols=3)
    budgets = np.array([profile.budget for profile in good])
    for axis, name, label in ((left, "N_opt", N_LABEL), (right, "D_opt", D_LABEL)):
        shades = [colour(budget) for budget in budgets]
        if fit.fitted:
            _draw_power_law(axis, fit, fit.a if axis is left else fit.b, budgets, label, "a" if axis is left else "b")
        else:
            _label_optima(axis, label)
            axis.set_title(f"optimal {label.split(' $')[0]}:\ntoo few minima for a law")
        axis.scatter(budgets, [getattr(profile, name) for profile in good], s=36, c=shades or None, **style.markers(len(good)))
    figure.suptitle(f"{IsoflopFit.title()}: {IsoflopFit.method}")
    return figure


def draw_parametric(fits: Fits, fit: ParametricFit) -> "Figure":
    """Contours of the fitted loss over C and N with the efficient frontier, and its slices (Chinchilla, Fig. 4)."""
    from matplotlib.colors import FuncNorm
    from matplotlib.ticker import FormatStrFormatter

    figure, (contour, slices) = style.panels(2, 12.5, 4.8)
    runs = fits.runs
    C = np.geomspace(runs.C.min() / 2, runs.C.max() * 4, 200)
    N = np.geomspace(runs.N.min() / 2, runs.N.max() * 2, 200)
    tokens = fit.surface.compute.tokens
    surface = fit.predict(N[:, None], tokens(N[:, None], C))
    # Levels at even steps of log loss above E, so that they do not crowd where the surface is steep.
    seen = np.array([surface[:, (runs.C.min() <= C)].min(), runs.loss.max()])
    levels = fit.E.value + np.geomspace(seen[0] - fit.E.value, seen[1] - fit.E.value, LEVELS)
    E = fit.E.value
    norm = FuncNorm((lambda loss: np.log(np.maximum(loss - E, 1e-12)), lambda y: E + np.exp(y)), levels[0], levels[-1])
    lines = contour.contour(C, N, surface, levels=levels, cmap=style.ramp().reversed(), norm=norm, linewidths=1)
    # The levels' numbers stand beside a bar: among the lines they would cut gaps into them and hide runs.
    bar = figure.colorbar(lines, ax=contour, label=f"fitted {style.loss_label(fits)}", ticks=levels)
    bar.ax.yaxis.set_major_formatter(FormatStrFormatter(f"%.{_digits(levels)}f"))
    bar.minorticks_off()
    bar.lines[0].set_linewidth(5)
    contour.scatter(runs.C, runs.N, s=14, c="0.35", label="runs", zorder=3, rasterized=style.dense(len(runs)))
    frontier = f"efficient frontier, $a$ = {style.interval(fit.a)}"
    style.draw_law(contour, fit, np.geomspace(C[0], C[-1], 30), "N", colour=HIGHLIGHT, label=frontier)
    contour.set(xlabel=C_LABEL, ylabel=N_LABEL, title="fitted loss")
    style.log_axes(contour)
    contour.set(xlim=(C[0], C[-1]), ylim=(N[0], N[-1]))

    colour = style.colours(runs.C)
    budgets = np.unique(runs.budget[np.isfinite(runs.budget)])
    for budget in budgets if 0 < len(budgets) <= LEVELS else np.geomspace(runs.C.min(), runs.C.max(), 6):
        slices.plot(N, fit.predict(N, tokens(N, budget)), color=colour(budget), linewidth=1)
    slices.scatter(runs.N, runs.loss, s=16, color=[colour(C) for C in runs.C], **style.markers(len(runs)))
    N_opt, D_opt = fit.optimal(C)
    slices.plot(N_opt, fit.predict(N_opt, D_opt), color=HIGHLIGHT, linewidth=2)
    margin = 0.05 * np.ptp(runs.loss)
    slices.set(xlabel=N_LABEL, ylabel=style.loss_label(fits), title="slices of equal FLOPs")
    style.log_axes(slices, "x")
    slices.set(xlim=(N[0], N[-1]), ylim=(runs.loss.min() - 2 * margin, runs.loss.max() + margin))
    colour.bar(slices, C_LABEL)
    style.legend([contour, slices])
    law = r"$L = %s + %s\,/\,N^{%s} + %s\,/\,D^{%s}$"
    figure.suptitle(f"{fit.title()}: " + law % tuple(map(_constant, (fit.E, fit.A, fit.alpha, fit.B, fit.beta))))
    return figure


def draw_frontier(fits: Fits) -> "Figure":
    """N_opt and D_opt against C by each approach that was fitted, with intervals; beyond the grey line no run was trained."""
    figure, axes = style.panels(2, 11, 4.8)
    runs = fits.runs
    C = np.geomspace(runs.C.min(), BEYOND * runs.C.max(), 40)
    for axis, name, label in zip(axes, ("N", "D"), (N_LABEL, D_LABEL), strict=True):
        axis.scatter(runs.C, getattr(runs, name), s=10, color="0.7", label="runs", rasterized=style.dense(len(runs)))
        for law in fits.fitted.values():
            look = {"colour": style.approach_colour(law.number), "dash": style.approach_dash(law.number)}
            style.draw_law(axis, law, C, name, label=law.title(), **look)
        axis.axvline(runs.C.max(), color="0.6", linewidth=0.8, zorder=0, label="largest run")
        axis.set(xlabel=C_LABEL, ylabel=f"optimal {label}")
        style.log_axes(axis)
    style.legend(axes, columns=6)
    figure.suptitle(f"The compute-optimal frontier by each approach, with {fits.level:.0%} intervals")
    return figure


def _draw_power_law(axis: "Axes", fit: Approach, exponent: Estimate, flops: np.ndarray, label: str, name: str) -> None:
    """The law through what is drawn at `flops`, with its band, up to a decade beyond."""
    C = np.geomspace(flops.min(), flops.max() * BEYOND, 40)
    law = rf"${label.split('$')[1]}_{{opt}} \propto C^{{{name}}}$, ${name}$ = {style.interval(exponent)}"
    style.draw_law(axis, fit, C, label.split("$")[1], colour=HIGHLIGHT, label=law)
    axis.axvline(flops.max(), color="0.8", linewidth=0.8, zorder=0)
    _label_optima(axis, label)
    style.legend_below(axis)


def _label_optima(axis: "Axes", label: str) -> None:
    axis.set(xlabel=C_LABEL, ylabel=f"optimal {label}", title=f"optimal {label.split(' $')[0]}")
    style.log_axes(axis)


def _bend(fit: EnvelopeFit) -> str:
    found = {True: "the frontier bends", False: "no sign that the frontier bends", None: "whether it bends is not known"}
    return f"{fit.title()} in thirds of log $C$: {found[fit.curvature.bends]}"


def _digits(levels: np.ndarray) -> int:
    """Decimals that tell neighbouring levels apart."""
    return int(np.clip(np.ceil(-np.log10(np.diff(levels).min())), 2, 5))


def _constant(estimate: Estimate) -> str:
    """To three digits, inside mathematics."""
    from sweep.figures.ticks import scientific

    plain = f"{estimate.value:.3g}"
    return scientific(float(plain)).strip("$") if "e" in plain else plain
