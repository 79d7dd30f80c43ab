"""The layer is frozen, but adapters train through it: the gradient of the input must be right."""

import copy

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from support.twins import assert_same_outputs, make_twin, mlp, quantize_with_twin, quantized_linear
from w8a16 import quantize

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


def wide_mlp():
    return quantize_with_twin(mlp().double())


def test_gradcheck():
    layer = quantized_linear(dtype=torch.float64)
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    assert gradcheck(layer, (x,))
    assert gradgradcheck(layer, (x,))


def test_gradcheck_of_the_second_order_through_a_nonlinear_model():
    model, _ = quantize_with_twin(mlp(6, 8, 3).double())
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(model, (x,))
    assert gradgradcheck(model, (x,))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_the_gradient_is_that_of_the_twin(dtype, tolerance):
    model, twin = quantize_with_twin(mlp().to(dtype))
    inputs = [torch.randn(5, 16, dtype=dtype).requires_grad_()]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    for module, x in zip((model, twin), inputs, strict=True):
        module(x).square().sum().backward()
    assert_same_outputs([inputs[0].grad], [inputs[1].grad], tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients_are_rounded_once(dtype):
    layer = quantized_linear()
    x = torch.randn(4, 16, dtype=dtype, requires_grad=True)
    grad = torch.randn(4, 32, dtype=dtype)
    layer(x).backward(grad)
    exact = (grad.double() * layer.scales.double()) @ layer.int8_weights.double()
    assert x.grad.dtype == dtype
    unit = {torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    magnitude = (grad.double().abs() * layer.scales.double()) @ layer.int8_weights.double().abs()
    # One rounding to the dtype, and n + 3 of float32 in the sum, in the scale and in the product.
    assert ((x.grad.double() - exact).abs() <= unit * exact.abs() + 36 * 2**-24 * magnitude).all()


def test_the_gradient_in_batch_dimensions():
    layer = quantized_linear()
    x = torch.randn(2, 3, 16, requires_grad=True)
    layer(x).sum().backward()
    expected = layer.weight.sum(0).expand(2, 3, 16)
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-5)


def test_nothing_of_the_layer_collects_a_gradient():
    layer = quantized_linear()
    layer(torch.randn(2, 16, requires_grad=True)).sum().backward()
    assert not any(buffer.requires_grad for buffer in layer.buffers())
    assert not layer(torch.randn(2, 16)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast(dtype):
    model, twin = quantize_with_twin(mlp())
    inputs = [torch.randn(5, 16).requires_grad_()]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    for module, x in zip((model, twin), inputs, strict=True):
        with torch.autocast("cpu", dtype=dtype):
            output = module(x)
            loss = output.float().sum()
        assert output.dtype == dtype
        loss.backward()
    assert inputs[0].grad.dtype == torch.float32
    # The twin also rounds its weights, so the two differ by a few roundings of the autocast dtype.
    unit = {torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    assert_same_outputs([inputs[0].grad], [inputs[1].grad], 4 * unit)


def test_activation_checkpointing():
    model = quantize(mlp())
    x = torch.randn(3, 16, requires_grad=True)
    (plain,) = torch.autograd.grad(model(x).sum(), x)
    for reentrant in (True, False):
        output = checkpoint(model, x, use_reentrant=reentrant)
        (grad,) = torch.autograd.grad(output.sum(), x) if not reentrant else (backward_into(output, x),)
        assert torch.equal(grad, plain)


def backward_into(output, x):
    output.sum().backward()
    return x.grad


class TestTransforms:
    """torch.func on functional_call, as per-sample gradients and Jacobians are computed."""

    @staticmethod
    def functions(model, twin):
        buffers, parameters = dict(model.named_buffers()), dict(twin.named_parameters())
        return (
            lambda x: functional_call(model, buffers, (x,)),
            lambda x: functional_call(twin, parameters, (x,)),
        )

    @pytest.mark.parametrize("dimension", [0, 1])
    def test_vmap(self, dimension):
        ours, theirs = self.functions(*wide_mlp())
        x = torch.randn(5, 16, dtype=torch.float64).movedim(0, dimension)
        mapped = [vmap(function, in_dims=dimension)(x) for function in (ours, theirs)]
        assert_same_outputs(mapped[:1], mapped[1:], 1e-14)

    @pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
    def test_jacobians(self, transform):
        ours, theirs = self.functions(*wide_mlp())
        x = torch.randn(16, dtype=torch.float64)
        assert_same_outputs([transform(ours)(x)], [transform(theirs)(x)], 1e-13)

    def test_vmap_of_jacrev(self):
        ours, theirs = self.functions(*wide_mlp())
        x = torch.randn(5, 16, dtype=torch.float64)
        assert_same_outputs([vmap(jacrev(ours))(x)], [vmap(jacrev(theirs))(x)], 1e-13)

    def test_jvp(self):
        ours, theirs = self.functions(*wide_mlp())
        x, direction = torch.randn(2, 5, 16, dtype=torch.float64)
        results = [jvp(function, (x,), (direction,)) for function in (ours, theirs)]
        assert_same_outputs(list(results[0]), list(results[1]), 1e-13)

    def test_an_ensemble_of_quantized_models(self):
        """One vmap over stacked buffers, as in `torch.func.stack_module_state`."""
        models = [quantize(mlp().double()) for _ in range(3)]
        stacked = {
            name: torch.stack([dict(model.named_buffers())[name] for model in models])
            for name, _ in models[0].named_buffers()
        }
        x = torch.randn(5, 16, dtype=torch.float64)
        skeleton = copy.deepcopy(models[0]).to("meta")
        outputs = vmap(lambda state: functional_call(skeleton, state, (x,)))(stacked)
        expected = torch.stack([model(x) for model in models])
        assert_same_outputs([outputs], [expected], 1e-14)


def test_forward_mode_keeps_the_tangent():
    """Losing it would give a zero derivative without a word."""
    model, twin = wide_mlp()
    x, direction = torch.randn(2, 3, 16, dtype=torch.float64)
    tangents = []
    for module in (model, twin):
        with forward_ad.dual_level():
            output = module(forward_ad.make_dual(x, direction))
            tangents.append(forward_ad.unpack_dual(output).tangent)
    assert tangents[0] is not None
    assert_same_outputs(tangents[:1], tangents[1:], 1e-13)


def test_the_bias_can_be_made_trainable():
    layer = quantized_linear()
    layer.bias = torch.nn.Parameter(layer.bias)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    layer(torch.randn(5, 16)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((32,), 5.0))
    assert layer.half().bias.dtype == torch.float16
    twin = make_twin(layer)
    assert torch.equal(twin.bias, layer.bias)
    assert list(twin.state_dict()) == ["weight", "bias"]
