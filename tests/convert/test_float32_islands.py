"""Layers kept in float32 inside a half-precision model: the dtype of the input decides."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_layer_is_exact, make_twin

HALVES = [torch.bfloat16, torch.float16]


class Island(nn.Module):
    """A router or a head that stays in float32, as `_keep_in_fp32_modules` of transformers asks for."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(32, 16)
        self.body, self.router = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, ids):
        hidden = self.body(self.table(ids))
        return hidden, self.router(hidden.float())

    def cast(self, dtype):
        router = self.router
        self.to(dtype)
        router.float()
        return self


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("cast_first", [True, False])
def test_it_computes_in_the_dtype_of_its_input(dtype, cast_first):
    model, ids = Island(), torch.tensor([[0, 31, 5]])
    model = w8a16.quantize(model.cast(dtype)) if cast_first else w8a16.quantize(model).cast(dtype)
    assert (model.body.weight_dtype, model.router.weight_dtype) == (dtype, torch.float32)
    assert (model.body.bias.dtype, model.router.bias.dtype) == (dtype, torch.float32)
    hidden, logits = model(ids)
    assert (hidden.dtype, logits.dtype) == (dtype, torch.float32)
    assert_equals_twin(model.router, make_twin(model.router), hidden.float())
    assert_layer_is_exact(model.router, hidden.float().reshape(-1, 16))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_a_linear_layer_returns_the_dtype_of_its_input(dtype, weight_dtype):
    """Where a float layer would refuse: the codes serve every dtype, with one rounding at the end."""
    layer, x = w8a16.quantize(nn.Linear(16, 32, dtype=weight_dtype)), torch.randn(5, 16).to(dtype)
    output = layer(x)
    assert output.dtype == dtype
    exact = x.double() @ layer.int8_weights.double().T * layer.scales.double() + layer.bias.double()
    tolerance = w8a16.core.output_tolerance(x, layer.int8_weights, layer.scales, layer.bias)
    assert ((output.double() - exact).abs() <= tolerance).all()
    assert layer.weight_dtype == weight_dtype


@pytest.mark.parametrize("dtype", HALVES)
def test_a_table_returns_its_own_dtype_whatever_surrounds_it(dtype):
    """Indices have no float dtype: the table's own decides, as for the float layer."""
    model = Island().to(dtype)
    model.table.float()
    w8a16.quantize(model)
    rows = model.table(torch.tensor([3, 4]))
    assert rows.dtype == model.table.weight_dtype == torch.float32
    assert torch.equal(rows, make_twin(model.table)(torch.tensor([3, 4])))
    wide = model.table.int8_weights[3:5] * model.table.scales[3:5, None]
    assert torch.equal(rows, wide)  # not rounded to half precision on the way


def test_a_round_trip_through_a_file_keeps_the_island(tmp_path):
    model = w8a16.quantize(Island().cast(torch.bfloat16))
    loaded = w8a16.load(Island(), w8a16.save(model, tmp_path))
    dtypes = {name: layer.weight_dtype for name, layer in loaded.named_children()}
    assert dtypes == {"table": torch.bfloat16, "body": torch.bfloat16, "router": torch.float32}
    ids = torch.tensor([[0, 31, 5]])
    for output, expected in zip(loaded(ids), model(ids), strict=True):
        assert torch.equal(output, expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_bare_parameter_behaves_like_a_float_one(dtype):
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.randn(4, 16))

        def forward(self, x):
            return x + self.gain

    model = w8a16.quantize(Gain())
    assert (model(torch.ones(4, 16, dtype=dtype))).dtype == torch.float32  # as torch promotes
    assert model.to(dtype)(torch.ones(4, 16, dtype=dtype)).dtype == dtype
