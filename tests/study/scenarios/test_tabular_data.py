from __future__ import annotations

import sys

import pytest
import torch

from w8a16.errors import MissingExtraError
from w8a16.study.scenarios.pictures import sklearn_datasets
from w8a16.study.scenarios.series import AHEAD, PAST, held_out_windows, series, windows
from w8a16.study.scenarios.tabular import diabetes


def test_rows_are_either_for_training_or_held_out() -> None:
    training, held_out = diabetes(False), diabetes(True)
    assert (len(training.targets), len(held_out.targets)) == (292, 150)
    rows = torch.cat([training.features, held_out.features])
    assert len({tuple(row) for row in rows.tolist()}) == 442
    torch.testing.assert_close(training.features.mean(0), torch.zeros(10), rtol=0, atol=1e-4)
    torch.testing.assert_close(training.features.std(0), torch.ones(10), rtol=0, atol=1e-4)


def test_windows_lie_inside_their_series() -> None:
    picked = torch.arange(60)
    past, ahead = windows(picked, False, torch.Generator().manual_seed(0))
    assert past.shape == (60, PAST, 8)
    assert ahead.shape == (60, AHEAD, 8)
    values, lengths = series(False)
    for number in picked.tolist():
        inside = values[number, : lengths[number]]
        stretch = torch.cat([past[number], ahead[number]])
        assert any(torch.equal(part, stretch.T) for part in inside.unfold(0, PAST + AHEAD, 1))


def test_held_out_windows_are_the_same_at_every_call() -> None:
    first = held_out_windows()
    held_out_windows.cache_clear()
    assert all(torch.equal(a, b) for a, b in zip(first, held_out_windows(), strict=True))


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        MissingExtraError, match=r"the digits needs scikit-learn.*pip install 'w8a16\[study\]'"
    ):
        sklearn_datasets("the digits")
