"""The compare command, and the figures of a comparison."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import DONE, columns, console
from sweep.commands.experiments.measuring import compared, compared_tables, write_comparison
from sweep.commands.sweeps import family_of, open_sweep
from sweep.files import writing
from sweep.words import counted

if TYPE_CHECKING:
    from sweep.compare import Outcome
    from sweep.compare.labels import Labels
    from sweep.fit import Estimate

COLUMNS = ("cell", "N", "D", "label", "seeds", "loss", "difference", "interval", "verdict", "factor in N", "in C", "per FLOP")
LEAST = ("D", "N", "loss", "seeds", "factor in N", "in C", "per FLOP")  # on a narrow screen
SAME_COST = 0.02  # what a label may differ by in FLOPs, before its factor per FLOP is shown


def compare(options: Namespace) -> int:
    """Compare what a sweep varies with its baseline, at the same N and D, with the noise between seeds.

    Prints for each label the difference in loss with an interval, a verdict ("differs", "equal within ±x", "too few seeds: n
    would do"), and what it is worth as a factor in N and in compute; then what an experiment says of its paper's claims; and
    writes compare.json, compare.csv and held_out_curves.csv. tables={ours: NAME, theirs: runs.csv} compares sweeps and tables.
    """
    if any(text.startswith("tables=") for text in options.overrides) or family_of(options):
        config, runs, labels, outcome = compared_tables(options)
        _print(labels, config.name)
        _print_claims(outcome)
        write_comparison(config, labels, outcome, runs)
        return DONE
    sweep = open_sweep(options)
    measured, found, outcome = compared(sweep)
    if found is not None:
        _print(found, sweep.config.name)
    _print_claims(outcome)
    write_comparison(sweep.config, found, outcome, measured.runs)
    with writing(Path(sweep.config.out)):
        measured.evaluations.to_csv(Path(sweep.config.out) / "held_out_curves.csv", index=False)
    return DONE


def _print_claims(outcome: "Outcome | None") -> None:
    if outcome is not None and outcome.text:
        print("\n".join(["", *outcome.text]))
    if outcome is not None and outcome.claims:
        print("\n" + "\n".join(claim.line() for claim in outcome.claims))


def _print(labels: "Labels", name: str) -> None:
    from sweep.compare.differences import EVERYWHERE
    from sweep.follow.status import text_table

    found = labels.comparison
    if found is not None:
        worth = {(each.label, each.cell): each for each in labels.factors}
        rows = []
        for each in found.differences:
            factors = worth.get((each.label, each.cell))
            three = (None, None, None) if factors is None else (factors.N, factors.C, factors.per_flop)
            sizes = ("all", "", "") if each.cell == EVERYWHERE else (str(each.cell), f"{each.N:,.0f}", f"{each.D:,.0f}")
            interval = "-" if each.low is None else f"{each.low:+z.4f} to {each.high:+z.4f}"
            losses = (str(each.seeds), f"{each.loss:.4f}", f"{each.value:+z.4f}", interval, each.words)
            rows.append((*sizes, each.label, *losses, *map(_factor, three)))
        shown = slice(None if any(abs(each.cost - 1) > SAME_COST for each in labels.factors) else -1)  # the last is "per FLOP"
        title = f"{name}: against {found.baseline or 'the baseline'}"
        table = text_table(
            COLUMNS[shown], [row[shown] for row in rows], left=("label", "verdict"), title=title, width=columns(), least=LEAST
        )
        console().print(table, soft_wrap=True)
        noise = "no seeds to go by" if found.noise is None else f"{found.noise:.4f} nats between seeds"
        if found.paired is not None and found.freedom:
            noise += f", {found.paired:.4f} beside what all runs of a seed share"
        comparisons = counted(found.comparisons, "comparison")
        print(f"\nnoise: {noise}; intervals of {found.level:.0%} for all {comparisons} together")
        for text in found.left_out:
            print(f"left out: {text}")
    for label, own in labels.free.items():
        low, high = (f"{C:.3g}" for C in labels.budgets)
        first, last = map(_factor, own)
        print(f"{label}: worth {first} in C at {low} FLOPs and {last} at {high}, with exponents of its own")
    print_exponents(labels, name)
    if labels.score is not None:
        print(labels.score.line())
    for note in labels.notes:
        print(note)


def print_exponents(labels: "Labels", unlabelled: str = "") -> None:
    for exponent in labels.exponents:
        text = exponent.reason if exponent.a is None else _interval(exponent.a)
        print(f"a of {exponent.label or unlabelled} by {exponent.approach}: {text}")


def _factor(estimate: "Estimate | None") -> str:
    return "-" if estimate is None else _interval(estimate, ".3g")


def _interval(estimate: "Estimate", form: str = ".3f") -> str:
    ends = "" if estimate.interval is None else f" ({', '.join(format(end, form) for end in estimate.interval)})"
    return f"{estimate.value:{form}}{ends}"
