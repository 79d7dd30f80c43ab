import pytest
import torch

from support.twins import quantized_linear
from w8a16.errors import DtypeError, ShapeError


@pytest.mark.parametrize(
    "input, text",
    [
        (torch.ones(2, 16, dtype=torch.int64), "torch.int64"),
        (torch.ones(2, 16, dtype=torch.int8), "torch.int8"),
        (torch.ones(2, 16, dtype=torch.bool), "torch.bool"),
        (torch.ones(2, 16, dtype=torch.complex64), "torch.complex64"),
        (torch.ones(2, 16).to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_dtype(input, text):
    with pytest.raises(DtypeError) as caught:
        quantized_linear()(input)
    assert isinstance(caught.value, TypeError)
    assert str(caught.value) == (
        f"input: expected float16, bfloat16, float32 or float64, got {text} (weight [32, 16])"
    )


@pytest.mark.parametrize("shape", [(2, 15), (2, 17), (15,), (1, 6, 32), (16, 2), (2, 0), ()], ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_wrong_width(shape, grad):
    with pytest.raises(ShapeError) as caught:
        quantized_linear()(torch.ones(shape, requires_grad=grad))
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        f"input: expected a last dimension of 16 for a weight [32, 16], got {list(shape)}"
    )


def test_an_input_on_another_device():
    with pytest.raises(DtypeError) as caught:
        quantized_linear()(torch.empty(2, 16, device="meta"))
    assert str(caught.value) == (
        "expected all tensors on one device, got input on meta, weight on cpu, scales on cpu, bias on cpu"
    )


@pytest.mark.parametrize("input", [None, [1.0] * 16, 3.0], ids=["None", "list", "float"])
def test_something_that_is_no_tensor(input):
    """nn.Linear raises a TypeError."""
    with pytest.raises(TypeError):
        quantized_linear()(input)


@pytest.mark.parametrize(
    "input", [torch.ones(2, 15), torch.ones(2, 16, dtype=torch.int64)], ids=["width", "dtype"]
)
def test_the_same_errors_under_autocast_and_torch_func(input):
    layer = quantized_linear()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises((ShapeError, DtypeError)):
        layer(input)
    with pytest.raises((ShapeError, DtypeError)):
        torch.func.vmap(layer)(input)
