"""What others have hung onto a layer keeps working: hooks, attributes, replaced forwards, flags."""

import copy
import functools

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_layer_is_exact, make_twin, mlp, storage_bytes


class Calls(list):
    """Records that a hook ran."""

    def __call__(self, *arguments):
        self.append(len(arguments))


HOOKS = {
    "forward_pre": nn.Module.register_forward_pre_hook,
    "forward": nn.Module.register_forward_hook,
    "full_backward_pre": nn.Module.register_full_backward_pre_hook,
    "full_backward": nn.Module.register_full_backward_hook,
}


def run(model):
    x = torch.randn(3, 16, requires_grad=True)
    model(x).sum().backward()
    return x.grad


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_registered_before_fire_after_and_can_be_removed(kind):
    model, calls = mlp(), Calls()
    handle = HOOKS[kind](model[0], calls)
    w8a16.quantize(model)
    assert run(model).norm() > 0
    assert len(calls) == 1
    handle.remove()
    run(model)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_survive_dequantize(kind):
    model, calls = mlp(), Calls()
    handle = HOOKS[kind](model[0], calls)
    w8a16.dequantize(w8a16.quantize(model))
    run(model)
    handle.remove()
    run(model)
    assert len(calls) == 1


def test_hooks_that_change_values():
    model = mlp()
    model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    model[0].register_forward_hook(lambda module, inputs, output: output + 1)
    model[2].register_forward_pre_hook(lambda module, args, kwargs: (args, kwargs), with_kwargs=True)
    w8a16.quantize(model)
    x = torch.randn(3, 16)
    assert_equals_twin(model, make_twin(model), x)
    hooked = copy.deepcopy(model)
    for layer in hooked:
        layer._forward_hooks.clear()
        layer._forward_pre_hooks.clear()
    assert not torch.allclose(hooked(x), model(x))


def test_state_dict_hooks_survive():
    model, calls = mlp(), Calls()
    model[0].register_state_dict_post_hook(calls)
    model[0].register_load_state_dict_post_hook(calls)
    w8a16.quantize(model)
    model.load_state_dict(model.state_dict())
    assert len(calls) == 2


def test_foreign_attributes():
    model = mlp()
    model[0].tag, model[0]._hf_hook = {"rank": 4}, object()
    tag, hook = model[0].tag, model[0]._hf_hook
    w8a16.quantize(model)
    assert model[0].tag is tag
    assert model[0]._hf_hook is hook
    w8a16.dequantize(model)
    assert model[0].tag is tag


def test_foreign_buffers_and_submodules():
    model = mlp()
    model[0].register_buffer("count", torch.tensor(3), persistent=False)
    model[0].inner = nn.Dropout()
    w8a16.quantize(model)
    assert model[0].count == 3
    assert "0.count" not in model.state_dict()
    assert type(model[0].inner) is nn.Dropout


@pytest.mark.parametrize("training", [True, False])
def test_the_training_flag_of_each_module(training):
    model = mlp().train(training)
    model[2].train(not training)
    for convert in (w8a16.quantize, w8a16.dequantize):
        convert(model)
        assert [module.training for module in model] == [training, training, not training]


class TestReplacedForward:
    @staticmethod
    def with_accelerate_hook(layer, calls):
        """What `accelerate.hooks.add_hook_to_module` does."""
        layer._old_forward = layer.forward

        def new_forward(module, *args, **kwargs):
            calls()
            return module._old_forward(*args, **kwargs)

        layer.forward = functools.update_wrapper(functools.partial(new_forward, layer), layer._old_forward)

    def test_the_kept_old_forward_becomes_the_int8_one(self):
        model, calls = mlp(), Calls()
        self.with_accelerate_hook(model[0], calls)
        w8a16.quantize(model)
        assert model[0]._old_forward.__func__ is w8a16.W8A16LinearLayer.forward
        model(torch.randn(3, 16))
        assert len(calls) == 1

    def test_it_equals_the_twin_and_goes_back(self):
        model, calls = mlp(), Calls()
        self.with_accelerate_hook(model[0], calls)
        w8a16.quantize(model)
        assert_layer_is_exact(model[2], torch.randn(3, 32))
        x, output = torch.randn(3, 16), None
        output = model(x)
        w8a16.dequantize(model)
        assert model[0]._old_forward.__func__ is nn.Linear.forward
        torch.testing.assert_close(model(x), output, rtol=1e-5, atol=1e-6)
        assert len(calls) == 2

    def test_the_hook_can_be_taken_off_afterwards(self):
        """`accelerate.hooks.remove_hook_from_module` puts the old forward back."""
        model, calls = mlp(), Calls()
        self.with_accelerate_hook(model[0], calls)
        w8a16.quantize(model)
        model[0].forward = model[0]._old_forward
        del model[0]._old_forward
        model(torch.randn(3, 16))
        assert calls == []
        assert_layer_is_exact(model[0], torch.randn(3, 16))

    def test_a_closure_over_the_old_forward_still_computes_the_right_thing(self):
        """It calls `nn.Linear.forward`, which reads `weight`: slower, but right."""
        model = mlp()
        old = model[0].forward
        model[0].forward = lambda x: old(x) * 3
        w8a16.quantize(model)
        x = torch.randn(4, 16)
        expected = 3 * (x @ model[0].weight.T + model[0].bias)
        torch.testing.assert_close(model[0](x), expected, rtol=1e-5, atol=1e-5)

    def test_a_forward_that_uses_the_weight_itself(self):
        model = nn.Sequential(nn.Linear(16, 16))
        layer = model[0]
        layer.forward = lambda x: x @ layer.weight * 2
        w8a16.quantize(model)
        x = torch.randn(4, 16)
        torch.testing.assert_close(model(x), 2 * x @ layer.weight, rtol=1e-6, atol=1e-6)


def test_requires_grad_is_dropped_with_the_parameters_and_can_be_set_on_the_rest():
    model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))
    w8a16.quantize(model)
    model.requires_grad_(True)
    assert [name for name, _ in model.named_parameters()] == ["1.weight", "1.bias"]


class TestModelsWithoutFloatParameters:
    """`next(model.parameters())` is a common question for dtype and device; it still gets an answer."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_there_is_an_empty_one_of_the_right_dtype(self, dtype):
        model = w8a16.quantize(mlp().to(dtype))
        (probe,) = model.parameters()
        assert (probe.numel(), probe.dtype, probe.device) == (0, dtype, torch.device("cpu"))
        assert not probe.requires_grad

    @pytest.mark.parametrize("copied", [lambda model: model, copy.deepcopy])
    def test_it_follows_moves(self, copied):
        model = copied(w8a16.quantize(mlp())).half()
        assert next(model.parameters()).dtype == torch.float16
        assert next(model.to("meta").parameters()).is_meta

    def test_it_is_in_no_state_dict_and_none_is_expected(self):
        model, other = w8a16.quantize(mlp()), w8a16.quantize(mlp()).half()
        names = {f"{layer}.{name}" for layer in "02" for name in ("int8_weights", "scales", "bias")}
        assert set(model.state_dict()) == names
        assert other.load_state_dict(model.state_dict(), strict=True).missing_keys == []
        assert next(other.parameters()).dtype == torch.float16

    def test_every_part_that_had_parameters_has_one(self):
        model = nn.ModuleDict({"encoder": mlp(), "decoder": mlp(), "act": nn.Sequential(nn.ReLU())})
        w8a16.quantize(model)
        assert {path: len(list(part.parameters())) for path, part in model.named_children()} == {
            "encoder": 1,
            "decoder": 1,
            "act": 0,
        }
        assert len(list(model.parameters())) == 2

    def test_it_goes_with_the_codes(self):
        model = w8a16.dequantize(w8a16.quantize(mlp()))
        assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]

    def test_where_float_parameters_remain_there_is_none(self):
        model = w8a16.quantize(nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16)))
        assert [name for name, _ in model.named_parameters()] == ["1.weight", "1.bias"]


def test_gradients_of_the_float_parameters_are_released():
    model = mlp()
    model(torch.randn(3, 16)).sum().backward()
    w8a16.quantize(model)
    assert storage_bytes(model) == w8a16.plan(model).bytes_after
    assert not any(isinstance(value, nn.Parameter) for value in vars(model[0]).values())
