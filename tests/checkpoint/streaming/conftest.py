"""Blocks so small that tiny tensors are cut in every way that large ones are."""

import pytest

from w8a16.checkpoint.streaming import cutting, long_rows, nonfinite


@pytest.fixture
def cut_small(monkeypatch):
    """`cut_small(block, columns)`: bytes of a block of rows, and of one whose rows are columns."""

    def cut(block: int, columns: int | None = None) -> None:
        for module in (cutting, long_rows, nonfinite):
            monkeypatch.setattr(module, "BLOCK_BYTES", block)
        monkeypatch.setattr(cutting, "COLUMN_BLOCK_BYTES", block if columns is None else columns)

    return cut
