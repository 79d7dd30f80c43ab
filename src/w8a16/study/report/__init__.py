"""The report of a comparison as HTML, Markdown and JSON, and the page and charts of the study.

`document.py` is the report as data, `histogram.py` counts the weights of a layer,
`worst.py` says of which. `figures.py`,
`readings.py` and `view.py` put numbers into words, `charts.py` and `svg.py` draw, `pages.py` fills the
templates. `study_results.py` reads the results
of the study, from which `study_charts.py` and `study_page.py` make its charts and its page.
"""

from w8a16.study.report.document import Report, SpeedRow, read_report, report_json
from w8a16.study.report.histogram import WorstLayer, worst_layer
from w8a16.study.report.pages import report_html, report_markdown
from w8a16.study.report.study_charts import study_charts
from w8a16.study.report.study_page import study_page
from w8a16.study.report.worst import worst_layer_of
from w8a16.study.report.write import write_report

__all__ = [
    "Report",
    "SpeedRow",
    "WorstLayer",
    "read_report",
    "report_html",
    "report_json",
    "report_markdown",
    "study_charts",
    "study_page",
    "worst_layer",
    "worst_layer_of",
    "write_report",
]
