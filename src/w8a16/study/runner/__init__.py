"""Runs the study: one cell for each scenario, size and seed, each written when it is done.

`run.py` goes through the cells, in this process or in several; `cell.py` measures one: `rows.py` the
precisions and quantizers, `tails.py` heavy tails and their repair, `peers.py` other libraries.
`folder.py` keeps cells and trained models, `pooling.py` puts the seeds together, `results.py` writes
the document that the page and the charts are made from.
"""

from w8a16.study.runner.results import processor_seconds, study_results
from w8a16.study.runner.run import Study, run_study
from w8a16.study.runner.settings import CellKey, Settings

__all__ = ["CellKey", "Settings", "Study", "processor_seconds", "run_study", "study_results"]
