"""What `quantize_weight` and `value_problem` say about weights that have no int8 code."""

import pytest
import torch

from w8a16.core import quantize_weight, value_problem, weights
from w8a16.errors import DtypeError, ShapeError, WeightValueError

NAN, INF = float("nan"), float("inf")
FOUR = "expected a float16, bfloat16, float32 or float64 weight to quantize, got "
DENSE = "expected a dense weight, got layout {}; call .to_dense() first"


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: torch.ones(2, 3, dtype=torch.int8), FOUR + "torch.int8"),
        (lambda: torch.ones(2, 3, dtype=torch.bool), FOUR + "torch.bool"),
        (lambda: torch.ones(2, 3, dtype=torch.complex64), FOUR + "torch.complex64"),
        (lambda: torch.ones(2, 3).to(torch.float8_e4m3fn), FOUR + "torch.float8_e4m3fn"),
        (lambda: torch.ones(2, 3).to(torch.float8_e5m2), FOUR + "torch.float8_e5m2"),
        (lambda: torch.ones(2, 3).to_sparse(), DENSE.format("torch.sparse_coo")),
        (lambda: torch.ones(2, 3).to_sparse_csr(), DENSE.format("torch.sparse_csr")),
        (lambda: [[1.0, 2.0]], "expected a tensor of float weights, got list"),
        (lambda: None, "expected a tensor of float weights, got NoneType"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_wrong_kinds_of_weight(make, text):
    with pytest.raises(DtypeError) as caught:
        quantize_weight(make())
    assert str(caught.value) == text
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_wrong_number_of_dimensions(shape):
    with pytest.raises(ShapeError) as caught:
        quantize_weight(torch.ones(shape))
    assert str(caught.value) == f"expected a weight [N, K] with two dimensions, got {list(shape)}"
    assert isinstance(caught.value, ValueError)


def test_an_uninitialized_parameter_gets_a_reason():
    with pytest.raises(DtypeError) as caught:
        quantize_weight(torch.nn.LazyLinear(4).weight)
    assert str(caught.value) == (
        "expected a weight with values, got an uninitialized one: run the lazy module once first"
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor_gets_a_reason(layout):
    nested = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=layout)
    with pytest.raises(DtypeError, match=r"^expected a dense weight, got a nested tensor$"):
        quantize_weight(nested)


@pytest.mark.parametrize("block", [1, 8, 1 << 21])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "bad, text",
    [
        ({(2, 3): NAN}, "1 of 32 values is NaN or Inf, the first at [2, 3] (nan)"),
        ({(3, 0): INF, (2, 7): -INF}, "2 of 32 values are NaN or Inf, the first at [2, 7] (-inf)"),
        ({(0, 1): NAN, (1, 0): INF, (3, 7): NAN}, "3 of 32 values are NaN or Inf, the first at [0, 1] (nan)"),
    ],
)
def test_nan_and_inf_are_counted_and_placed(bad, text, dtype, block, monkeypatch):
    # Small blocks: the count and the place must be those of the whole weight.
    monkeypatch.setattr(weights, "_BLOCK_ELEMENTS", block)
    weight = torch.ones(4, 8, dtype=dtype)
    for place, value in bad.items():
        weight[place] = value
    with pytest.raises(WeightValueError) as caught:
        quantize_weight(weight)
    assert str(caught.value) == text
    assert value_problem(weight) == text
    assert isinstance(caught.value, ValueError)


def test_every_value_may_be_nan():
    with pytest.raises(WeightValueError) as caught:
        quantize_weight(torch.full((4, 8), NAN))
    assert str(caught.value) == "32 of 32 values are NaN or Inf, the first at [0, 0] (nan)"


@pytest.mark.parametrize("sign", [1, -1])
def test_float64_rows_whose_scale_exceeds_float32(sign):
    weight = torch.ones(4, 8, dtype=torch.float64)
    weight[2, 5] = sign * 1e41
    text = "the largest value 1e+41 needs a scale beyond float32 (largest / 127 > 3.4e38)"
    with pytest.raises(WeightValueError) as caught:
        quantize_weight(weight)
    assert str(caught.value) == text
    assert value_problem(weight) == text


def test_float64_rows_whose_scale_just_fits_float32():
    weight = torch.tensor([[1.0, -0.5]], dtype=torch.float64) * 127 * torch.finfo(torch.float32).max
    assert value_problem(weight) is None
    codes, scales, _ = quantize_weight(weight)
    assert codes.tolist() == [[127, -64]]
    assert scales.item() == torch.finfo(torch.float32).max


def test_both_functions_agree_at_the_edge_of_float32():
    # amax / 127 lies above the largest float32, by less than half a unit in the last place.
    weight = torch.tensor([[127 * torch.finfo(torch.float32).max * (1 + 1e-9)]], dtype=torch.float64)
    assert quantize_weight(weight).int8_weights.tolist() == [[127]]
    assert value_problem(weight) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_good_weights_have_no_value_problem(dtype):
    assert value_problem(torch.randn(4, 8).to(dtype)) is None
    assert value_problem(torch.zeros(4, 8, dtype=dtype)) is None
    assert value_problem(torch.zeros(0, 8, dtype=dtype)) is None
    assert value_problem(torch.empty(4, 8, dtype=dtype, device="meta")) is None
    largest = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    assert value_problem(torch.full((2, 2), largest, dtype=dtype)) is None
