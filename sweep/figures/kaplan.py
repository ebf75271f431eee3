"""The figure of Kaplan et al.'s laws of the loss."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sweep.figures import style
from sweep.figures.style import HIGHLIGHT
from sweep.fit import Fits
from sweep.fit.kaplan.laws import PF_DAY
from sweep.fit.kaplan.table import unbeaten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("L_C", "L_D", "L_N")


def draw_kaplan(fits: Fits) -> "Figure":
    """The loss against C, D and N, with the power law of the runs where that alone was scarce (Kaplan et al. 2020, Fig. 1)."""
    figure, axes = style.panels(3, 14, 4.8, sharey=True)
    runs = fits.kaplan_runs
    excluding = runs is not fits.runs
    labels = ("compute $C$ (PF-days)", "training tokens $D$", "parameters $N$" + (" without embeddings" if excluding else ""))
    for axis, name, X, label in zip(axes, NAMES, (runs.C / PF_DAY, runs.D, runs.N), labels, strict=True):
        symbol, law = name[-1], cast(Any, fits.kaplan[name])
        best = unbeaten(X, runs.loss)
        if symbol == "C" and fits.curves:
            per_token = dict(zip(map(str, runs.run_id), runs.C / runs.D / PF_DAY, strict=True))
            curves = [curve for curve in fits.curves if curve.run_id in per_token]
            spent = [curve.tokens * per_token[curve.run_id] for curve in curves]
            colour = style.colours(np.array([curve.N for curve in fits.curves]))
            style.draw_curves(axis, spent, curves, colour, linewidths=0.5, alpha=0.3, label="training curves (training loss)")
        look = {"rasterized": style.dense(len(X)), "zorder": 3}
        axis.scatter(X[~best], runs.loss[~best], s=14, facecolor="white", edgecolor="0.45", linewidth=0.8, label="runs", **look)
        axis.scatter(X[best], runs.loss[best], s=22, color="#0072b2", label="unbeaten at that $C$, $D$ or $N$", **look)
        title = f"loss against ${symbol}$"
        if law.fitted:
            x = np.geomspace(X.min() / 1.5, X.max() * 1.5, 50)
            exponent = law.constants["exponent"]
            axis.plot(x, law.predict(x), color=HIGHLIGHT, linewidth=1.6, label="power law through these", zorder=4)
            if exponent.low is not None:
                # A line of least squares turns about the mean of its points.
                middle = np.exp(np.log(X[best]).mean())
                turned = [law.predict(middle) * (x / middle) ** -end for end in (exponent.low, exponent.high)]
                ends = np.minimum(*turned), np.maximum(*turned)
                label_band = f"slopes within their {fits.level:.0%} interval"
                style.band(axis, x, *ends, colour=HIGHLIGHT, label=label_band)
            title += f": $\\alpha_{symbol}$ = {style.interval(exponent, 3)}"
        else:
            title += f": no law ({law.status.replace('_', ' ')})"
        style.log_axes(axis, plain="y")
        axis.set(xlabel=label, title=title, xlim=(X.min() / 2.5, X.max() * 2.5))
        axis.title.set_fontsize(10)
    margin = (runs.loss.max() / runs.loss.min()) ** 0.06
    axes[0].set(ylabel=style.loss_label(fits), ylim=(runs.loss.min() / margin, runs.loss.max() * margin))
    for axis in axes[1:]:
        axis.tick_params(labelleft=True)
    style.legend(axes, columns=5)
    figure.suptitle("Kaplan et al.'s laws: $L(X) = (X_c\\,/\\,X)^{\\alpha_X}$, where only $X$ was scarce")
    return figure
