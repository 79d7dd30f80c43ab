"""Output folders that are absent or complete (docs/decisions/0013-atomic-output.md).

`stage.py` is the protocol; it uses `locks.py`, `rename.py` (replacing nothing), `leftovers.py` (what killed
runs left) and `interrupts.py`.
"""
