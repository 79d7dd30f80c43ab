import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, mlp, quantize_with_twin, snapshot
from w8a16.errors import CoverageError


class LearnedBias(nn.Module):
    """A bias of two dimensions."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8, 16))


def model_with_rest():
    filters = nn.ParameterList([torch.zeros(4, 16, dtype=torch.complex64)])
    return nn.Sequential(LearnedBias(), nn.Linear(16, 16), filters, nn.Linear(1, 4))


TEXT = """\
strict: 3 weights would stay float:
  0.bias [8, 16] float32: a bias is added in float32; int8 would save next to nothing
  2.0 [4, 16] complex64: not float16, bfloat16, float32 or float64: torch.complex64
  3.weight [4, 1] float32: int8 and scales would not be smaller: 20 bytes against 16"""


@pytest.mark.parametrize("verb", [w8a16.plan, w8a16.quantize])
def test_every_tensor_that_would_stay_float_is_named(verb):
    model = model_with_rest()
    before = snapshot(model)
    with pytest.raises(CoverageError) as caught:
        verb(model, strict=True)
    assert str(caught.value) == TEXT
    assert isinstance(caught.value, ValueError)
    assert_unchanged(model, before)


def test_what_the_caller_excluded_does_not_count():
    model = model_with_rest()
    w8a16.quantize(model, exclude=[LearnedBias, "2", "3"], include=nn.Linear, strict=True)
    assert type(model[1]) is w8a16.W8A16LinearLayer


def test_what_the_caller_did_not_include_does_not_count():
    reasons = {row.name: row.reason for row in w8a16.plan(model_with_rest(), include="1", strict=True).rows}
    assert reasons == {
        "0.bias": "not_included",
        "1.weight": "converted",
        "2.0": "not_included",
        "3.weight": "not_included",
    }


def test_what_the_caller_did_not_ask_for_by_kind_does_not_count():
    model = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 16))
    w8a16.quantize(model, kinds="linear", strict=True)
    assert [type(layer) for layer in model] == [nn.Embedding, w8a16.W8A16LinearLayer]


def test_weights_that_are_dequantized_on_use_count_as_int8():
    model = nn.Sequential(nn.ParameterList([torch.randn(4, 16)]), nn.Embedding(8, 16))
    plan = w8a16.plan(model, strict=True)
    assert [row.reason for row in plan.rows] == ["stored", "converted"]
    assert plan.coverage == 1.0


def test_full_coverage_passes():
    model, twin = quantize_with_twin(mlp(), strict=True)
    assert w8a16.plan(model, strict=True).coverage == 1.0
    assert len(list(twin.parameters())) == 4


def test_nonfinite_weights_kept_float_count():
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(CoverageError, match=r"0\.weight"):
        w8a16.quantize(model, strict=True, on_nonfinite="keep-float")
    assert type(model[2]) is nn.Linear
