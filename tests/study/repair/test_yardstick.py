"""The measures against numbers worked out by hand, and which output they look at."""

import math

import pytest
import torch
from torch import nn

from w8a16.errors import ComparisonError
from w8a16.study.repair import Budget
from w8a16.study.repair.yardstick import Yardstick, main_output


class Fixed(nn.Module):
    """Gives the rows it is told to, whatever it is asked."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, x):
        return {"loss": self.rows.sum(), "hidden": torch.ones(3), "logits": self.rows}


X = [torch.zeros(1)]


def read(metric, reference, other, batches=X):
    return Yardstick(Fixed(*reference), batches, Budget(metric, 0.5), None).read(Fixed(*other))


def test_kl():
    p, q = [0.25, 0.75], [0.5, 0.5]
    found = read("kl", [[math.log(v) for v in p], [0.0, 0.0]], [[math.log(v) + 3 for v in q], [7.0, 7.0]])
    assert found.value == pytest.approx((0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2)
    assert found.drift == found.value
    assert found.met


def test_cosine():
    found = read("cosine", [[3.0, 4.0], [0.0, 0.0]], [[4.0, 3.0], [0.0, 0.0]])
    assert found.value == pytest.approx((24 / 25 + 1) / 2)
    assert found.drift == pytest.approx(1 - found.value)
    assert found.met


def test_sqnr():
    found = read("sqnr_db", [[10.0, 0.0]], [[10.0, 1.0]])
    assert found.value == pytest.approx(20)
    assert found.drift == pytest.approx(0.01)


def test_top1():
    found = read("top1", [[1.0, 2.0], [2.0, 1.0], [0.0, 5.0]], [[3.0, 2.0], [2.0, 0.0], [0.0, 1.0]])
    assert found.value == pytest.approx(2 / 3)


def test_a_mean_over_batches_counts_positions():
    class Echo(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift = shift

        def forward(self, x):
            return x + self.shift * torch.tensor([0.0, 1.0])

    batches = [torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 0.0]] * 3)]
    yardstick = Yardstick(Echo(0.0), batches, Budget("top1", 0.5), None)
    assert yardstick.read(Echo(2.0)).value == 3 / 4


def test_equal_outputs_do_not_drift():
    for metric, best in (("kl", 0.0), ("cosine", 1.0), ("sqnr_db", math.inf), ("top1", 1.0)):
        found = read(metric, [[1.0, 2.0]], [[1.0, 2.0]])
        assert (found.value, found.drift) == (best, 0)


def test_an_int8_model_that_gives_nan_keeps_no_budget():
    for metric in ("kl", "cosine", "sqnr_db", "top1"):
        found = read(metric, [[1.0, 2.0]], [[1.0, math.nan]])
        assert not found.met
        assert math.isnan(found.value)


def test_the_output_that_is_looked_at():
    a, b = torch.ones(2, 3), torch.zeros(2, 3)
    assert main_output({"hidden": b, "logits": a}) is a
    assert main_output((torch.tensor(1.0), torch.ones(2, dtype=torch.int64), a, b)) is a
    with pytest.raises(ComparisonError, match="pass a function as the budget's metric"):
        main_output({"loss": torch.tensor(1.0)})


def test_other_shapes_are_refused():
    with pytest.raises(ComparisonError, match=r"to have the shape \[1, 2\], got \[1, 3\]"):
        read("kl", [[1.0, 2.0]], [[1.0, 2.0, 3.0]])
