import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, mlp, quantize_with_twin, snapshot
from w8a16.errors import CoverageError


def model_with_rest():
    return nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 16), nn.Conv1d(16, 4, 3), nn.Linear(1, 4))


TEXT = """\
strict: 3 weights would stay float:
  0.weight [8, 16] float32: no int8 layer kind for this module: Embedding
  2.weight [4, 16, 3] float32: no int8 layer kind for this module: Conv1d
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
    w8a16.quantize(model, exclude=[nn.Embedding, "2", "3"], include=nn.Linear, strict=True)
    assert type(model[1]) is w8a16.W8A16LinearLayer


def test_what_the_caller_did_not_include_does_not_count():
    reasons = {row.name: row.reason for row in w8a16.plan(model_with_rest(), include="1", strict=True).rows}
    assert reasons == {
        "0.weight": "not_included",
        "1.weight": "converted",
        "2.weight": "not_included",
        "3.weight": "not_included",
    }


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
