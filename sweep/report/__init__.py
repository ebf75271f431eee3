"""The report: `isosweep report` makes one HTML file that answers how large a model, how many tokens, and how sure that is.

`page` puts it together. `plots` makes the interactive plots, `origin` and `cost` collect what is known about the runs, and
`checklist` lists the choices made. A report shows the results of the fits; it fits nothing.
"""

from sweep.report.cost import Cost, costs
from sweep.report.origin import Origin
from sweep.report.page import render, require_packages, write_report

__all__ = ["Cost", "Origin", "costs", "render", "require_packages", "write_report"]
