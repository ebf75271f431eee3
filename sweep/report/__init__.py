"""The report: `isosweep report` makes one HTML file that answers how large a model, how many tokens, and how sure that is.

`page` puts it together. `plots` makes the interactive plots, `origin` collects what is known about the runs and their cost, and
`checklist` lists the choices made, and `markdown` tells the same in Markdown. A report shows the results of the fits; it fits
nothing.
"""

from sweep.report.markdown import write_markdown
from sweep.report.origin import Cost, Origin, costs
from sweep.report.page import render, write_report
