"""What evaluate says of the checkpoints along training, and of the law of every set."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import columns, console
from sweep.commands.sweeps import Sweep
from sweep.files import write_json, writing
from sweep.words import counted

if TYPE_CHECKING:
    from sweep.compare.positions import AtStep
    from sweep.use.evaluate import EvaluationSet

NAMED = 3  # runs, in a line


def show_along(sweep: Sweep, sets: "Sequence[EvaluationSet]", device: str) -> list[Path]:
    """Evaluate the kept checkpoints of every finished run; print, write and draw what they say. Returns the files."""
    from sweep.compare.positions import position_laws
    from sweep.compare.transfer import effects, lines, paired, size_law
    from sweep.figures.along import draw_positions_along, draw_sets_along, draw_transfer_along
    from sweep.figures.style import save
    from sweep.fit import Options
    from sweep.fit.result import plain
    from sweep.store.collect import collect_along

    config, intervals = sweep.config, Options.of(sweep.config.fit).intervals
    _evaluate(sweep, sets, device)
    along = collect_along(sweep.plan.runs, sweep.store)
    along = along[along["set"].isin([each.name for each in sets])]
    base = along[along["label"] == sweep.plan.labels[0]]
    N = "N" if config.fit.parameters == "total" else "N_non_embedding"
    sizes = {}
    for name, rows in base[base["final"]].groupby("set", sort=False):
        size, D, loss = (rows[column].to_numpy(dtype=float) for column in (N, "D", "loss"))
        sizes[name] = size_law(size, D, loss, intervals)
        alpha = sizes[name].constants["exponent"] if sizes[name].fitted else sizes[name]  # type: ignore[union-attr]
        print(f"alpha_N of {name}: {alpha}")
    if base["final"].all():
        return []
    laws, pairs = position_laws(along, intervals), paired(along)
    of_base = [each for each in laws if each.label == sweep.plan.labels[0]]
    _print_positions(of_base, config.name)
    through, found = lines(pairs), effects(pairs, sweep.plan.labels, level=config.compare.level, margin=config.compare.margin)
    for line in through:
        print(line.line())
    for effect in found:
        print(f"{effect.set}, {effect.of}: {effect.words}")
    values: dict[str, Any] = {"positions": laws, "sizes": sizes}
    values |= {"lines": [asdict(each) for each in through], "effects": [asdict(each) | {"words": each.words} for each in found]}
    out = Path(config.out)
    with writing(out):
        along.drop(columns=["blocks", "fingerprint"]).to_csv(out / "along.csv", index=False)
        write_json(out / "along.json", plain(values))
    written = [out / "along.csv", out / "along.json", *save(draw_sets_along(base), out / "sets_along")]
    if of_base:
        written += save(draw_positions_along(base, of_base), out / "positions_along")
    return written + (save(draw_transfer_along(pairs, through), out / "transfer_along") if pairs else [])


def _evaluate(sweep: Sweep, sets: "Sequence[EvaluationSet]", device: str) -> None:
    """Measure the kept checkpoints; say which of them cannot be read, and which there are not."""
    from sweep.use.along import evaluate_along, lacking

    runs, keep, missing, count = sweep.finished(), sweep.config.evaluation.keep, [], 0
    for run in runs:
        directory = sweep.store.run(run.run_id)
        for problem in evaluate_along(run, directory, sets, device):
            print(f"isosweep: {problem}; it is left out", file=sys.stderr)
        if lost := lacking(run, directory, keep):
            missing.append(run.run_id)
            count += lost
    if missing:
        named = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
        lack = f"{len(missing)} of {counted(len(runs), 'run')} lack {count} of their checkpoints along training"
        print(
            f"{lack}: they were trained without evaluation.keep={keep}, or cleaned. To have them, delete {named} in "
            f"{sweep.store.root / 'runs'}, and isosweep launch {sweep.config.name} evaluation.keep={keep} trains them again"
        )


def _print_positions(laws: "Sequence[AtStep]", name: str) -> None:
    """The laws at the ends of the longest runs, by N, and along the largest run."""
    from sweep.fit import Refused
    from sweep.follow.status import text_table

    kept = [each for each in laws if not each.final]
    ends = {each.N: each for each in laws if each.final}  # the last of each N is the longest
    shown = [*ends.values(), *(each for each in kept if each.run_id == kept[-1].run_id)]
    rows = []
    for each in shown:
        if isinstance(each.law, Refused) or each.gamma is None:
            told = ("", "", each.reason)
        else:
            told = (f"{each.law.law.L_inf:.3f}", f"{each.law.law.c:.3f}", str(each.gamma))
        rows.append((f"{each.N:,}", f"{each.tokens:,}", "end" if each.final else str(each.step), *told))
    title = f"{name}: loss by position, L(t) = L_inf + c t^-gamma"
    headings = ("N", "tokens seen", "step", "L_inf", "c", "gamma")
    table = text_table(headings, rows, left=("gamma",), title=title, width=columns(), least=("c", "L_inf"))
    console().print(table, soft_wrap=True)
