import pytest
import torch
from torch import nn

import w8a16
from support.twins import (
    assert_equals_twin,
    assert_unchanged,
    make_twin,
    mlp,
    quantize_with_twin,
    snapshot,
)
from w8a16.errors import CoverageError


def lazy_model():
    return nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 8))


class TestLazy:
    def test_before_it_has_a_shape(self):
        model = lazy_model()
        plan = w8a16.plan(model)
        assert {row.name: (row.verdict, row.reason) for row in plan.rows} == {
            "0.weight": ("float", "uninitialized"),
            "0.bias": ("float", "uninitialized"),
            "2.weight": ("int8", "converted"),
        }
        assert plan.rows[0].sentence == "a lazy weight without a shape: run the model once, then quantize"
        assert "LazyLinear" in str(plan)
        with pytest.raises(CoverageError, match=r"0\.weight .*a lazy weight without a shape"):
            w8a16.quantize(model, strict=True)

    def test_it_still_takes_its_shape_after_the_rest_was_quantized(self):
        model = w8a16.quantize(lazy_model())
        assert model(torch.randn(3, 16)).shape == (3, 8)
        assert type(model[0]) is nn.Linear
        w8a16.quantize(model)
        assert_equals_twin(model, make_twin(model), torch.randn(3, 16))

    def test_after_it_has_a_shape(self):
        model = lazy_model()
        model(torch.randn(3, 16))
        model, twin = quantize_with_twin(model, strict=True)
        assert type(model[0]) is w8a16.W8A16LinearLayer
        assert model[0].in_features == 16
        assert_equals_twin(model, twin, torch.randn(3, 16))


class TestMeta:
    def test_the_plan_is_that_of_the_real_model(self):
        real, meta = w8a16.plan(mlp()), w8a16.plan(mlp().to("meta"))
        assert meta == real
        assert str(meta) == str(real)

    def test_the_skeleton_takes_the_state_of_the_real_one(self):
        real, x = w8a16.quantize(mlp().bfloat16()), torch.randn(3, 16, dtype=torch.bfloat16)
        skeleton = w8a16.quantize(mlp().bfloat16().to("meta"))
        assert all(buffer.is_meta for buffer in skeleton.buffers())
        assert skeleton(x.to("meta")).shape == (3, 8)
        skeleton.to_empty(device="cpu").load_state_dict(real.state_dict())
        assert torch.equal(skeleton(x), real(x))
        assert skeleton[0].weight.dtype == torch.bfloat16

    def test_assigning_gives_a_working_model_too(self):
        real, x = w8a16.quantize(mlp()), torch.randn(3, 16)
        skeleton = w8a16.quantize(mlp().to("meta"))
        skeleton.load_state_dict(real.state_dict(), assign=True)
        assert torch.equal(skeleton(x), real(x))

    def test_ties_on_the_meta_device(self):
        model = mlp(16, 16, 16).to("meta")
        model[2].weight = model[0].weight
        assert w8a16.plan(model).rows[0].aliases == ("2.weight",)
        w8a16.quantize(model)
        assert model[0].int8_weights is model[2].int8_weights

    def test_different_meta_weights_are_not_tied(self):
        """They all have the address 0."""
        model = w8a16.quantize(mlp(16, 16, 16).to("meta"))
        assert model[0].int8_weights is not model[2].int8_weights

    def test_dequantize_on_the_meta_device(self):
        model = w8a16.dequantize(w8a16.quantize(mlp().half().to("meta")))
        assert model[0].weight.is_meta
        assert model[0].weight.dtype == torch.float16

    def test_a_model_that_is_partly_on_meta(self):
        model = mlp()
        model[0].to("meta")
        w8a16.quantize(model)
        assert model[0].int8_weights.is_meta
        assert model[2].int8_weights.device.type == "cpu"


class TestPlaces:
    """Where and when quantize is called must not matter."""

    def test_under_inference_mode_then_training_an_adapter_through_it(self):
        model = mlp()
        with torch.inference_mode():
            w8a16.quantize(model)
        adapter = nn.Linear(16, 16)
        model(adapter(torch.randn(3, 16))).square().sum().backward()
        assert adapter.weight.grad.norm() > 0

    def test_a_model_made_in_inference_mode(self):
        with torch.inference_mode():
            model = mlp()
        model, twin = quantize_with_twin(model)
        x = torch.randn(3, 16, requires_grad=True)
        model(x).sum().backward()
        assert x.grad.norm() > 0
        with torch.inference_mode():
            assert_equals_twin(model, twin, torch.randn(3, 16))

    def test_dequantize_under_inference_mode_gives_trainable_parameters(self):
        model = w8a16.quantize(mlp())
        with torch.inference_mode():
            w8a16.dequantize(model)
        model(torch.randn(3, 16)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_under_no_grad_and_enable_grad(self):
        states = []
        for mode in (torch.no_grad, torch.enable_grad):
            torch.manual_seed(3)
            model = mlp()
            with mode():
                states.append(w8a16.quantize(model).state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_the_default_dtype_does_not_matter(self):
        states = []
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(3)
            model = mlp()
            torch.set_default_dtype(dtype)
            try:
                states.append(snapshot(w8a16.quantize(model)))
            finally:
                torch.set_default_dtype(torch.float32)
        assert_unchanged(model, states[0])
        assert model[0].weight.dtype == torch.float32

    def test_an_uninitialized_model_is_left_alone(self):
        model = nn.Sequential(nn.LazyConv1d(4, 3), nn.LazyBatchNorm1d())
        assert {row.reason for row in w8a16.plan(model).rows} == {"uninitialized"}
        assert w8a16.quantize(model) is model
        assert model(torch.randn(2, 3, 8)).shape == (2, 4, 6)
