"""The report: `isosweep report` makes one HTML file that answers how large a model, how many tokens, and how sure that is.

`page` puts it together, `plots` has the interactive plots, `origin` and `cost` what is known of the runs beside their numbers,
`checklist` the choices. It draws what the fits found, and fits nothing.
"""

from sweep.report.cost import Cost, costs
from sweep.report.origin import Origin
from sweep.report.page import render, require_packages, write_report

__all__ = ["Cost", "Origin", "costs", "render", "require_packages", "write_report"]
