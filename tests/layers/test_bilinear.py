"""Bilinear layers in int8: one rounding, any leading dimensions, bounded memory, gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import w8a16
from support.numerics import DTYPES, UNIT_ROUNDOFF
from support.twins import assert_equals_twin, quantize_with_twin
from w8a16.errors import DtypeError, ShapeError
from w8a16.layers import bilinear, quantizing


def exact(model, x1, x2):
    """In float64, from the codes as they are stored."""
    sums = torch.einsum("...i,nij,...j->...n", x1.double(), model.int8_weights.double(), x2.double())
    return sums * model.scales.double() + (0 if model.bias is None else model.bias.double())


@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1, 200, 1 << 20], ids=["channel by channel", "some blocks", "one block"])
def test_equals_its_twin(leading, bias, block, monkeypatch):
    monkeypatch.setattr(bilinear, "_BLOCK_ELEMENTS", block)
    model, twin = quantize_with_twin(nn.Bilinear(7, 9, 11, bias=bias))
    assert model.int8_weights.shape == (11, 7, 9)
    assert model.scales.shape == (11,)
    assert_equals_twin(model, twin, (torch.randn(*leading, 7), torch.randn(*leading, 9)))


def test_no_rows():
    model = w8a16.quantize(nn.Bilinear(7, 9, 11))
    assert model(torch.randn(2, 0, 7), torch.randn(2, 0, 9)).shape == (2, 0, 11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_rounding(dtype):
    model = w8a16.quantize(nn.Bilinear(33, 65, 17).to(dtype))
    x1, x2 = torch.randn(4, 33, dtype=dtype), torch.randn(4, 65, dtype=dtype)
    terms = torch.einsum(
        "...i,nij,...j->...n", x1.double().abs(), model.int8_weights.double().abs(), x2.double().abs()
    )
    accumulator = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    expected = exact(model, x1, x2)
    bound = UNIT_ROUNDOFF[dtype] * expected.abs() + 100 * accumulator * (terms * model.scales + 1)
    if dtype == torch.float64:
        bound = bound * 2  # the reference rounds as well
    output = model(x1, x2)
    assert output.dtype == dtype
    assert ((output.double() - expected).abs() <= bound).all()


def test_products_beyond_float16_are_scaled_before_they_are_rounded():
    model = w8a16.quantize(nn.Bilinear(8, 8, 4).half())
    x = torch.full((1, 8), 40.0, dtype=torch.float16)
    sums = torch.einsum("i,nij,j->n", x[0].double(), model.int8_weights.double(), x[0].double())
    assert sums.abs().max() > torch.finfo(torch.float16).max
    assert model(x, x).isfinite().all()


def test_integers_are_exact():
    model = w8a16.quantize(nn.Bilinear(5, 6, 7))
    model.scales.fill_(0.25)
    nn.init.zeros_(model.bias)
    x1, x2 = torch.randint(-8, 9, (3, 5)).float(), torch.randint(-8, 9, (3, 6)).float()
    assert torch.equal(model(x1, x2), exact(model, x1, x2).float())


def test_gradients_and_their_gradients(monkeypatch):
    monkeypatch.setattr(bilinear, "_BLOCK_ELEMENTS", 24)  # two channels a block
    model = w8a16.quantize(nn.Bilinear(3, 4, 5).double())
    inputs = torch.randn(2, 3).double().requires_grad_(), torch.randn(2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(model, inputs)
    assert torch.autograd.gradgradcheck(model, inputs)


@pytest.mark.parametrize("wanted", [0, 1])
def test_the_gradient_of_one_input_alone(wanted):
    model, twin = quantize_with_twin(nn.Bilinear(3, 4, 5))
    values, found = (torch.randn(2, 3), torch.randn(2, 4)), []
    for each in (model, twin):
        leaves = [value.clone().requires_grad_(i == wanted) for i, value in enumerate(values)]
        each(*leaves).square().sum().backward()
        assert leaves[1 - wanted].grad is None
        found.append(leaves[wanted].grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_func_transforms():
    model, twin = quantize_with_twin(nn.Bilinear(3, 4, 5))
    x1, x2 = torch.randn(6, 3), torch.randn(6, 4)
    torch.testing.assert_close(torch.func.vmap(model)(x1, x2), twin(x1, x2), rtol=1e-5, atol=1e-6)
    jacobian = torch.func.vmap(torch.func.jacrev(model))(x1, x2)
    expected = torch.func.vmap(torch.func.jacrev(twin))(x1, x2)
    torch.testing.assert_close(jacobian, expected, rtol=1e-5, atol=1e-6)


class Largest(TorchDispatchMode):
    """The most elements that any result of an operation had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype.is_floating_point:
            self.elements = max(self.elements, result.numel())
        return result


def test_memory_is_bounded(monkeypatch):
    """Neither the float weight nor the product with one input is ever made as a whole."""
    monkeypatch.setattr(bilinear, "_BLOCK_ELEMENTS", 5_000)
    model = w8a16.quantize(nn.Bilinear(32, 32, 100))
    x1, x2 = torch.randn(50, 32, requires_grad=True), torch.randn(50, 32, requires_grad=True)
    with Largest() as largest:
        model(x1, x2).sum().backward()
    assert largest.elements == 50 * 100  # the output; the weight has 102,400 and the product 160,000


def test_nothing_is_dequantized(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a weight was dequantized")

    model = w8a16.quantize(nn.Bilinear(3, 4, 5))
    monkeypatch.setattr(quantizing, "dequantize", refuse)
    with pytest.raises(AssertionError, match="a weight was dequantized"):
        model.weight.sum()
    model(torch.randn(2, 3), torch.randn(2, 4))


def test_inputs_that_do_not_fit():
    model = w8a16.quantize(nn.Bilinear(3, 4, 5))
    with pytest.raises(ShapeError, match=r"input2: expected \[\.\.\., 4\] .* got \[2, 3\] and \[2, 3\]"):
        model(torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(ShapeError, match="equal leading dimensions"):
        model(torch.randn(2, 3), torch.randn(1, 4))
    with pytest.raises(DtypeError, match=r"one float dtype, got torch\.float32 and torch\.float64"):
        model(torch.randn(2, 3), torch.randn(2, 4).double())
    with pytest.raises(DtypeError, match="input1"):
        model(torch.ones(2, 3).long(), torch.ones(2, 4).long())


def test_a_subclass_that_calls_the_function():
    class Scaled(nn.Bilinear):
        def forward(self, x1, x2):
            return nn.functional.bilinear(x1, x2, self.weight * 2, self.bias)

    model, twin = quantize_with_twin(Scaled(3, 4, 5))
    inputs = torch.randn(2, 3), torch.randn(2, 4)
    assert_equals_twin(model, twin, inputs)
    assert_equals_twin(copy.deepcopy(model), twin, inputs)
