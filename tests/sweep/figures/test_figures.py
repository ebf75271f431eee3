"""The figures: what is in them, and that nothing in them lies on anything else, whatever the sweep."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.errors import InputError
from sweep.figures import draw_all, figures_of, style
from sweep.figures.checks import draw_exponents, draw_extrapolation
from sweep.figures.curves import draw_collapse, tokens_to_loss
from sweep.fit import Curve, Estimate, Fits, Intervals, Noise, Options, RunTable, Simulator, Surface, fit_all
from sweep.fit.judge.conventions import ConventionRow
from sweep.tables.conventions import KAPLAN_COUNTING
from tests.sweep.figures.looks import colour_bars, contrast, covering, outside, overlapping

ROOT = Path(__file__).resolve().parents[3]
SURFACE = Surface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
SIMULATOR = Simulator(surface=SURFACE, noise=Noise(run=0.003, step=0.002), seed=1)
EVERY = (
    *("envelope", "thirds", "isoflop", "parametric", "residuals", "frontier", "sensitivity", "conventions", "extrapolation"),
    *("kaplan", "learning", "tokens_to_loss", "collapse"),
)


def fitted(runs: RunTable, curves: list[Curve]) -> Fits:
    other = {KAPLAN_COUNTING: replace(runs, N=runs.N * 0.8)}
    quick = Options(intervals=Intervals(12))
    return fit_all(runs, curves, convention={"loss": "val"}, conventions=other, options=quick)


def plain_sweep() -> tuple[RunTable, list[Curve]]:
    runs = SIMULATOR.isoflop(np.geomspace(1e18, 1e20, 5), sizes=7)
    return runs, SIMULATOR.curves(runs, points=60)


def long_names() -> tuple[RunTable, list[Curve]]:
    """Names of 160 letters with signs of TeX; the curve of one run near the optimum has a bump."""
    runs, curves = plain_sweep()
    names = np.array([f"/scratch/team$_{i}/{'very_long_{name}' * 10}^{i}" for i in range(len(runs))])
    bump = [1 + 0.5 * np.sin(np.pi * c.tokens / c.tokens[-1]) * (i == 17) for i, c in enumerate(curves)]
    renamed = [replace(c, run_id=name, loss=c.loss * by) for c, name, by in zip(curves, names, bump, strict=True)]
    return replace(runs, run_id=names), renamed


def three_sizes() -> tuple[RunTable, list[Curve]]:
    runs = SIMULATOR.runs(np.repeat([1e8, 3e8, 1e9], 6), np.tile(np.geomspace(1e9, 3e10, 6), 3))
    return runs, SIMULATOR.curves(runs, points=60)


def one_budget() -> tuple[RunTable, list[Curve]]:
    runs = SIMULATOR.isoflop([1e19], sizes=9)
    return runs, SIMULATOR.curves(runs, points=60)


def narrow_range() -> tuple[RunTable, list[Curve]]:
    """Axes of less than a decade, where matplotlib's own ticks collide; no curves."""
    return SIMULATOR.isoflop(np.geomspace(1e19, 1.6e19, 4), sizes=7, span=4), []


def many_budgets() -> tuple[RunTable, list[Curve]]:
    runs = SIMULATOR.isoflop(np.geomspace(1e17, 1e22, 24), sizes=5)
    return runs, SIMULATOR.curves(runs, points=30)


# Each case with the figures that it is hardest on; all are looked at with --runslow.
CASES = {
    three_sizes: ("kaplan", "tokens_to_loss"),
    one_budget: ("isoflop", "learning"),
    narrow_range: ("parametric", "residuals"),
    many_budgets: ("extrapolation", "isoflop"),
}


@pytest.fixture(scope="module")
def fits() -> Fits:
    return fitted(*plain_sweep())


@pytest.fixture(scope="module")
def named() -> Fits:
    return fitted(*long_names())


@pytest.fixture(autouse=True)
def few_open() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def figures(fits: Any) -> dict[str, Any]:
    drawn = figures_of(fits)
    plt.close("all")  # pyplot counts them
    return drawn


def test_nothing_lies_on_anything_else(figures: dict[str, Any], named: Any) -> None:
    look(figures)
    look({"collapse": draw_collapse(named, named.collapse)})


@pytest.mark.parametrize("case", CASES)
def test_nothing_lies_on_anything_else_in_odd_sweeps(case: Callable[[], Any], runslow: bool) -> None:
    drawn = figures_of(fitted(*case()))
    look(drawn if runslow else {name: drawn[name] for name in CASES[case]})


def look(figures: dict[str, Any]) -> None:
    for name, figure in figures.items():
        figure.draw_without_rendering()
        assert not overlapping(figure), (name, overlapping(figure))
        assert not outside(figure), (name, outside(figure))
        assert not covering(figure), (name, covering(figure))
        for axes in figure.axes:
            assert axes in colour_bars(figure) or axes.get_xlabel(), name


def test_every_figure_is_drawn_and_described(figures: dict[str, Any]) -> None:
    assert tuple(figures) == EVERY
    gallery = (ROOT / "docs" / "gallery.md").read_text()
    for name in figures:
        assert re.search(rf"^!\[[^]]+\]\(\.\./results/cpu-python/{name}\.png\)$", gallery, re.MULTILINE), name


def test_the_commands_write_what_is_asked_for(fits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweep.commands import laws

    monkeypatch.setattr(laws, "make_fits", lambda config, sweep: fits)
    monkeypatch.setattr("sweep.figures.figures_of", lambda fits: {"one.two": plt.figure()})
    assert main(["plot", "table=any.csv", f"out={tmp_path}", "figures.formats=[png,pdf]"]) == DONE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.two.pdf", "one.two.png"]
    assert (tmp_path / "one.two.pdf").read_bytes().startswith(b"%PDF")
    assert draw_all(fits, tmp_path) == [tmp_path / "one.two.png", tmp_path / "one.two.svg"]
    with pytest.raises(InputError, match="'jpg' is none of png, svg, pdf"):
        draw_all(fits, tmp_path, ("jpg",))


@pytest.mark.parametrize("formats", ["[png,jpg]", "[]", "[png,png]"])
def test_formats_that_cannot_be_written_are_refused(formats: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "table=any.csv", f"figures.formats={formats}"]) == BAD_INPUT
    assert "figures.formats" in (message := capsys.readouterr().err)
    assert "png, svg, pdf" in message


def test_an_interval_that_is_named_is_drawn(figures: dict[str, Any], fits: Any) -> None:
    for name in ("envelope", "isoflop", "thirds", "parametric", "frontier"):
        panels = [axes for axes in figures[name].axes if "80% interval" in axes.get_legend_handles_labels()[1]]
        assert len(panels) == {"thirds": 1, "parametric": 1}.get(name, 2), name
        for axes in panels:
            bands = [each for each in axes.collections if isinstance(each, PolyCollection)]
            assert len(bands) == (3 if name == "frontier" else 1), name
    # The band is the interval of the law.
    band = figures["frontier"].axes[0].collections[-1].get_paths()[0].vertices
    at = band[np.isclose(band[:, 0], fits.runs.C.max() * 10)][:, 1]
    N = fits.parametric.resampled_at(fits.runs.C.max() * 10)[0]
    assert [at.min(), at.max()] == pytest.approx(np.quantile(N, [0.1, 0.9]), rel=1e-6)


def test_approaches_are_told_apart_without_colour(figures: dict[str, Any]) -> None:
    lines = [line for line in figures["frontier"].axes[0].lines if line.get_label().startswith("Approach")]
    assert len({str(line._dash_pattern) for line in lines}) == len(lines) == 3


def test_no_colour_of_the_ramp_is_lost_on_white(figures: dict[str, Any]) -> None:
    assert contrast("#fde725") < 1.3  # the end of viridis
    ramp = style.ramp()
    assert min(contrast(colour) for colour in ramp.colors) > 1.8
    for colour in [style.approach_colour(number) for number in range(1, 6)]:
        assert contrast(colour) > 2.8
    for figure in figures.values():
        for axes in colour_bars(figure):
            for mesh in axes.collections:
                assert isinstance(mesh, LineCollection) or mesh.cmap.name == "sizes"


def test_a_bar_of_one_colour_is_left_out(figures: dict[str, Any]) -> None:
    three: Any = fitted(*_first_budgets(3))
    held = three.extrapolation.each
    assert len({prediction.C for one in held for prediction in one.predictions}) == 1
    figure = draw_extrapolation(three, held)
    assert not colour_bars(figure)
    assert "all at $C$" in figure.axes[1].get_xlabel()
    assert len(colour_bars(figures["extrapolation"])) == 1


def _first_budgets(count: int) -> tuple[RunTable, list[Curve]]:
    runs, _ = plain_sweep()
    return runs.where(np.flatnonzero(runs.budget <= np.unique(runs.budget)[count - 1])), []


def test_contours_are_labelled_beside_them_and_none_is_broken(figures: dict[str, Any]) -> None:
    contour, _, *bars = figures["parametric"].axes
    assert not contour.texts
    assert len(bars) == 2
    levels = [float(text.get_text()) for text in bars[0].get_yticklabels()]
    assert len(set(levels)) == len(levels) == 12


def test_an_interval_beyond_the_figure_has_an_arrow() -> None:
    rows = [
        ConventionRow(convention="c", protocol="p", approach="parametric", a=a, runs=9)
        for a in (Estimate(0.5, 0.4, 0.6), Estimate(0.9, -3, 7), Estimate(2.5, 0.8, np.inf), Estimate(0.5))
    ]
    figure: Any = draw_exponents(rows, 0.8)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    arrows = [(line.get_marker(), float(line.get_xdata()[0])) for line in axes.lines if line.get_marker() in ("<", ">")]
    assert arrows == [("<", low), (">", high), (">", high)]
    assert any(text.get_text().strip() == "2.50" for text in axes.texts)
    ends = np.array([line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"])
    assert len(ends) == 4
    assert low <= ends.min() < ends.max() <= high


def test_kaplans_panels_show_the_laws_and_the_runs_they_hold_for(figures: dict[str, Any], fits: Any) -> None:
    axes = figures["kaplan"].axes
    assert len(axes) == 3
    assert "without embeddings" in axes[2].get_xlabel()
    for panel, name, X in zip(
        axes, ("L_C", "L_D", "L_N"), (fits.runs.C / 8.64e19, fits.runs.D, 0.8 * fits.runs.N), strict=True
    ):
        law = fits.kaplan[name]
        assert f"{law.constants['exponent'].value:.3f}" in panel.get_title()
        line = next(line for line in panel.lines if line.get_label() == "power law through these")
        x, y = line.get_data()
        np.testing.assert_allclose(y, law.predict(x), rtol=1e-9)
        points = [each for each in panel.collections if str(each.get_label()).startswith(("runs", "unbeaten"))]
        drawn = np.concatenate([np.asarray(each.get_offsets()) for each in points])
        np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(X), rtol=1e-9)
        best = np.asarray(points[1].get_offsets())
        assert len(best) == law.points
        assert (np.diff(best[np.argsort(best[:, 0])][:, 1]) < 0).all()
    curves = [each for each in axes[0].collections if isinstance(each, LineCollection)]
    assert [len(each.get_segments()) for each in curves] == [len(fits.curves)]


def test_the_thirds_have_the_slopes_of_the_fit(figures: dict[str, Any], fits: Any) -> None:
    axes = figures["thirds"].axes[0]
    for name, third in zip(("first", "middle", "last"), fits.envelope.curvature.thirds, strict=True):
        line = next(line for line in axes.lines if str(line.get_label()).startswith(f"{name} third"))
        x, y = np.log(line.get_data())
        assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(third.value, abs=1e-9)
    assert any(str(line.get_label()).startswith("all of $C$") for line in axes.lines)


def test_larger_models_take_fewer_tokens_to_a_loss() -> None:
    simulator = Simulator(surface=SURFACE)
    runs = simulator.runs(np.geomspace(1e8, 1e10, 5), np.full(5, 1e11))
    curves = simulator.curves(runs, points=200)
    reached = tokens_to_loss(curves)
    assert len(reached) == 5
    for level, cuts in reached.items():
        N, D = np.array([(cut.N, cut.tokens[-1]) for cut in cuts]).T
        assert len(N) >= 3
        truth = (SURFACE.B / (level - SURFACE.E - SURFACE.A / N**SURFACE.alpha)) ** (1 / SURFACE.beta)
        np.testing.assert_allclose(D, truth, rtol=0.01)
        assert (np.diff(D) < 0).all()
    assert tokens_to_loss(curves[:2]) == {}
    assert tokens_to_loss([]) == {}


def test_curves_are_drawn_against_tokens_and_compute(figures: dict[str, Any], fits: Any) -> None:
    tokens, flops, *_ = figures["learning"].axes
    for axes, end in (
        (tokens, lambda curve: curve.tokens[-1]),
        (flops, lambda curve: curve.tokens[-1] * curve.flops_per_token),
    ):
        lines = [line for each in axes.collections for line in each.get_segments()]
        ends = sorted(line[-1][0] for line in lines)
        assert ends == pytest.approx(sorted(map(end, fits.curves)))


def test_the_collapse_is_in_the_fits_and_names_runs_that_stand_out(named: Any) -> None:
    assert named.collapse.fitted
    assert [one.run_id for one in named.collapse.outliers] == [named.runs.run_id[17]]
    assert "Collapse of the training curves" in named.summary()
    assert named.to_dict()["collapse"]["outliers"][0]["deviation"] > 0.3
    axes = draw_collapse(named, named.collapse).axes[0]
    (label,) = [str(line.get_label()) for line in axes.lines if str(line.get_label()).startswith("stands out")]
    assert len(label) < 50
