"""The figure of `repetition`: lowest losses against unique tokens, and what repetition does on the way."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.fit.result import Refused

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(figure: "Figure", points: "pd.DataFrame", evaluations: "pd.DataFrame", laws: dict[str, Any]) -> None:
    """Left, Kaplan et al.'s figure 9: the lowest loss against U, a curve for each N. Right: held-out losses in the training of
    the largest N, the lowest marked; or, where only Muennighoff et al.'s law is fitted, last losses against epochs."""
    figure.set_size_inches(11, 4.6)
    left, right = figure.subplots(1, 2)
    without = points[points.dropout == 0]
    without = without[without.D == without.groupby("N").D.transform("max")]
    _lowest(left, without, laws["L_ND"])
    if isinstance(laws["L_ND"], Refused) and not isinstance(laws["data_constrained"], Refused):
        _epochs(right, without, laws["data_constrained"])
    else:
        _training(right, points[points.N == points.N.max()], evaluations)
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)


def _colours(values: Any) -> dict[float, Any]:
    """A colour for each different value, dark to light; the yellow end is left out, which white paper swallows."""
    from matplotlib import colormaps

    different = np.unique(np.asarray(values, dtype=float))
    return dict(zip(different, colormaps["viridis"](np.linspace(0, 0.8, len(different))), strict=True))


def _lowest(axes: "Axes", points: "pd.DataFrame", law: Any) -> None:
    for N, colour in _colours(points.N).items():
        some = points[points.N == N]
        axes.plot(some.U, some.best, "o", color=colour, ms=5, label=f"N = {N:,.0f}")
        if not isinstance(law, Refused):
            U = np.geomspace(points.U.min(), points.U.max(), 100)
            axes.plot(U, law.predict(some.M.iloc[0], U), color=colour, lw=1.2)
        else:
            mean = some.groupby("U").best.min()
            axes.plot(mean.index, mean, color=colour, lw=0.8, alpha=0.6)
    lines = "no law fitted" if isinstance(law, Refused) else "lines: L(N, D)"
    axes.set(
        xscale="log", xlabel="unique tokens $U$", ylabel="lowest held-out loss (nats per token)", title=f"Lowest loss; {lines}"
    )


def _training(axes: "Axes", points: "pd.DataFrame", evaluations: "pd.DataFrame") -> None:
    colours, first = _colours(points.U), 0.0
    for run in points.sort_values(["U", "dropout"]).drop_duplicates(["U", "D", "dropout"]).to_dict("records"):
        along = evaluations[evaluations.run_id == run["run_id"]].sort_values("tokens")
        colour, rate = colours[run["U"]], run["dropout"]
        first = max(first, along.loss.iloc[0])
        label = f"U = {run['U']:,.0f}" + (f", dropout {rate:g}" if rate else "")
        axes.plot(along.tokens, along.loss, ls="--" if rate else "-", color=colour, lw=1.2, label=label)
        axes.plot(run["best_tokens"], run["best"], "v", color=colour, ms=7)
    # Where a run has overfitted by more than it learnt, it leaves the axes, in which the other runs would be one line.
    axes.set_ylim(top=first + 0.3 * (first - points.best.min()))
    axes.set(xscale="log", xlabel="tokens seen", ylabel="held-out loss (nats per token)")
    axes.set(title=f"N = {points.N.max():,.0f} in training; ▾ its lowest loss")


def _epochs(axes: "Axes", points: "pd.DataFrame", law: Any) -> None:
    for N, colour in _colours(points.N).items():
        some = points[points.N == N]
        D, epochs = some.D.max(), some.D / some.U
        for turned, marker in ((False, "o"), (True, "x")):
            chosen = some.turned == turned
            label = f"N = {N:,.0f}, D = {D:,.0f}" if not turned else "lowest of runs that overfit, not fitted"
            if chosen.any():
                axes.plot(
                    epochs[chosen], some.best[chosen] if turned else some.final[chosen], marker, color=colour, label=label
                )
        if N in law.E_N:
            R = np.geomspace(1, epochs.max(), 100)
            axes.plot(R, law.predict(N, D / R, D), color=colour, lw=1.2)
    axes.set(xscale="log", xlabel="epochs $D / U$", ylabel="last held-out loss (nats per token)")
    axes.set(title=f"Repeated data; lines: $R^*$ = {law.R_star.value:.3g}")
