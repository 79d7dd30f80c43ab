"""What the results of the study's tools have in common: plain data for JSON, and tables of plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def plain_data(value: Any) -> Any:
    """Nested values as JSON has them: tuples as lists, numbers that JSON lacks as text.

    Example:
        >>> plain_data({"drift": (0.5, float("inf"))})
        {'drift': [0.5, 'inf']}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: plain_data(item) for key, item in value.items()}
    return [plain_data(item) for item in value] if isinstance(value, (tuple, list)) else value


def text_table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of equal length, the header among them, in columns as wide as their widest cell.

    Example:
        >>> print(text_table([("layer", "share"), ("lm_head", "80%")]))
        layer    share
        lm_head  80%
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
