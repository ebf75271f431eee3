"""One answer first: the numbers to go by, how sure they are, what speaks against them, and what would help most."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.fit.approaches import APPROACHES
from sweep.fit.judge.choices import TwoParts
from sweep.fit.result import Record


@dataclass(frozen=True, kw_only=True)
class Recommended(Record):
    """The run to train with `C` FLOPs; `loss` is by the approach or form `loss_by`, and None if none is believed there."""

    C: float
    N: TwoParts
    D: TwoParts
    loss: TwoParts | None
    loss_by: str | None

    def line(self) -> str:
        loss = f"loss {self.loss.combined} by {self.loss_by}" if self.loss else "no law of the loss is believed there"
        return f"With {self.C:.3g} FLOPs: N = {self.N.combined}, D = {self.D.combined}, {loss}"


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """What to go by.

    Attributes:
        approach: the name of the approach that is recommended.
        a, b: the exponents of N_opt and D_opt, with both parts of their uncertainty.
        rows: the runs at the largest C and the next.
        agree, differ: titles of other approaches whose interval of a overlaps its own, of noise alone, and of the others.
        set_aside: titles of approaches that were not considered, and why; all of them if none is sound.
        held_out: how well larger budgets were predicted; None if none could be.
        advice: what would help most.
    """

    approach: str
    a: TwoParts
    b: TwoParts
    rows: tuple[Recommended, ...]
    agree: tuple[str, ...]
    differ: tuple[str, ...]
    set_aside: dict[str, str]
    held_out: str | None
    advice: str

    @property
    def title(self) -> str:
        return APPROACHES[self.approach].heading()

    def lines(self) -> list[str]:
        """Five lines: the exponent, the runs at two budgets, what speaks for and against them, what would help."""
        checks = [f"{_listed(self.agree)} agree{'s' * (len(self.agree) == 1)}"] if self.agree else []
        checks += [f"{_listed(self.differ)} differ{'s' * (len(self.differ) == 1)}"] if self.differ else []
        checks += [
            f"{title} is {'in doubt too' if APPROACHES[self.approach].title() == title else 'set aside'}: {reason}"
            for title, reason in self.set_aside.items()
        ]
        held_out = self.held_out or "no budget could be predicted from smaller ones"
        return [
            f"N_opt grows as C^a, a = {self.a} ({self.title})",
            *(row.line() for row in self.rows),
            f"Checks: {'; '.join([*(checks or ['no other approach was fitted']), f'held out, {held_out}'])}",
            f"What would help most: {self.advice}",
        ]

    def parts(self) -> list[str]:
        """Both parts of every uncertainty."""
        lines = ["Uncertainty, what noise does and what other choices do", f"  a = {self.a}", f"  b = {self.b}"]
        for row in self.rows:
            lines += [
                f"  {name} at C = {row.C:.3g}: {of}" for name, of in (("N", row.N), ("D", row.D), ("loss", row.loss)) if of
            ]
        return lines


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
