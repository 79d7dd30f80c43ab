"""The streaming quantizer: from checkpoint files to checkpoint files, in bounded memory, on all cores.

`quantizer.py` plans and runs; `placement.py` says what every output tensor is made of, `rows.py` which
rows a stored tensor fills; `cutting.py` cuts the work into the blocks of `blocks.py` and `long_rows.py`,
`pool.py` runs them, `tally.py` puts their results together.
"""

from w8a16.checkpoint.streaming.quantizer import (
    DEFAULT_MEMORY,
    CheckpointWork,
    Options,
    Outcome,
    plan_checkpoint,
)

__all__ = ["DEFAULT_MEMORY", "CheckpointWork", "Options", "Outcome", "plan_checkpoint"]
