"""The approaches, and the laws of one table by each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.fit.approaches.approach import Approach, Options, PowerLaws
from sweep.fit.approaches.envelope import EnvelopeFit
from sweep.fit.approaches.isoflop import IsoflopFit
from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.result import attempt
from sweep.tables.curves import Curve
from sweep.tables.table import RunTable

APPROACHES: dict[str, type[Approach]] = {law.name: law for law in (EnvelopeFit, IsoflopFit, ParametricFit)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Laws:
    """The law of one table by each approach, fitted when it is first asked for.

    Attributes:
        runs: the table.
        curves: training curves of its runs; empty if there are none.
        options: of the fits.
        known: the laws so far, by name.
    """

    runs: RunTable
    curves: Sequence[Curve] = ()
    options: Options = Options()
    known: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """The law by the approach `name`, or a `Refused`."""
        if name not in self.known:
            self.known[name] = attempt(lambda: APPROACHES[name].fit(self))
        return self.known[name]

    def items(self) -> Iterator[tuple[str, Any]]:
        """All laws, by name."""
        return ((name, self[name]) for name in APPROACHES)
