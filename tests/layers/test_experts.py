"""Fused experts in int8: what holds for every layer kind, for each set of options of the decorator."""

import copy
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.experts import EXPERTS, HIDDEN, INNER, VARIANTS, experts_class, make_experts, routed
from support.twins import assert_same_outputs, make_twin, snapshot
from w8a16.core import error_in_half_steps
from w8a16.layers import W8A16Experts

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def name(request):
    return request.param


def run(module, inputs):
    with torch.no_grad():
        return module(*inputs)


def test_codes_and_scales_lie_by_expert_and_output_channel(name):
    floats = make_experts(name)
    module = w8a16.quantize(copy.deepcopy(floats))
    up = "gate_up_proj" if floats.has_gate else "up_proj"
    outputs = 2 * INNER if floats.has_gate else INNER
    assert module.codes_of(up).shape == (EXPERTS, outputs, HIDDEN)
    assert module.codes_of("down_proj").shape == (EXPERTS, HIDDEN, INNER)
    for weight in (up, "down_proj"):
        assert module.scales_of(weight).shape == module.codes_of(weight).shape[:2]
        rows = getattr(floats, weight).detach()
        rows = rows.transpose(1, 2) if floats.is_transposed else rows
        errors = error_in_half_steps(
            rows.flatten(0, 1), module.codes_of(weight).flatten(0, 1), module.scales_of(weight).flatten()
        )
        assert errors.max() <= 1 + 2**-15
        assert module.codes_of(weight).abs().amax(-1).eq(127).all()


def test_biases_stay_parameters():
    module = w8a16.quantize(make_experts(VARIANTS["transposed, interleaved, with bias"]))
    assert [n for n, _ in module.named_parameters()] == ["gate_up_proj_bias", "down_proj_bias"]


@pytest.mark.parametrize("implementation", [None, "eager", "grouped_mm", "batched_mm"])
def test_the_forward_is_the_same_whatever_the_configuration_names(name, implementation):
    module, inputs = w8a16.quantize(make_experts(name)), routed()
    expected = run(module, inputs)
    module.config._experts_implementation = implementation
    assert torch.equal(run(module, inputs), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_compute_in_that_of_the_input(name, dtype):
    module = w8a16.quantize(make_experts(name, dtype))
    inputs = routed(dtype=dtype)
    exact = run(make_twin(module).double(), (inputs[0].double(), inputs[1], inputs[2].double()))
    output = run(module, inputs)
    assert output.dtype == dtype
    roundoff = torch.finfo(dtype).eps / 2
    # Four roundings on the way to each token's sum: up, gate, down, weighting.
    assert (output.double() - exact).norm() <= 4 * roundoff * exact.norm() + 1e-7 * exact.norm()


def test_a_float32_layer_takes_half_precision_tokens(name):
    module, inputs = w8a16.quantize(make_experts(name)), routed()
    halves = (inputs[0].bfloat16(), inputs[1], inputs[2])
    output = run(module, halves)
    assert output.dtype == torch.bfloat16
    expected = run(module, (halves[0].float(), *halves[1:]))
    assert (output.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("tokens", [0, 1, 2, 40])
def test_any_number_of_tokens(name, tokens):
    module = w8a16.quantize(make_experts(name))
    inputs = routed(tokens) if tokens else tuple(t[:0] for t in routed(1))
    output = run(module, inputs)
    assert output.shape == (tokens, HIDDEN)
    if tokens:
        assert_same_outputs([output], [run(make_twin(module), inputs)], 1e-5)


def test_experts_that_no_token_chose_and_one_that_all_did(name):
    module, (x, _, _) = w8a16.quantize(make_experts(name)), routed()
    inputs = x, torch.tensor([[2, 0]]).expand(len(x), 2), torch.rand(len(x), 2)
    assert_same_outputs([run(module, inputs)], [run(make_twin(module), inputs)], 1e-5)


def test_experts_of_other_devices_add_nothing(name):
    """Expert parallelism marks them with an index beyond the last one and a routing weight of zero."""
    module, (x, chosen, weights) = w8a16.quantize(make_experts(name)), routed()
    expected = run(module, (x, chosen, weights * (chosen != 1)))
    module._is_expert_parallel = True
    elsewhere = torch.where(chosen == 1, EXPERTS, chosen)
    x.requires_grad_()
    output = module(x, elsewhere, weights * (chosen != 1))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    output.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[(elsewhere == EXPERTS).sum(1) == 0].ne(0).any()


def test_gradients_reach_tokens_and_routing_weights(name):
    module = w8a16.quantize(make_experts(name))
    twin = make_twin(module)
    gradients = []
    inputs, direction = routed(), torch.randn(9, HIDDEN)
    for each in (module, twin):
        x, weights = (t.clone().requires_grad_() for t in (inputs[0], inputs[2]))
        (each(x, inputs[1], weights) * direction).sum().backward()
        gradients.append([x.grad, weights.grad])
        if each is module and module.has_bias:
            gradients[-1] += [module.gate_up_proj_bias.grad, module.down_proj_bias.grad]
        elif module.has_bias:
            gradients[-1] += [twin.gate_up_proj_bias.grad, twin.down_proj_bias.grad]
    assert_same_outputs(*gradients, 1e-5)


def test_it_compiles_in_one_graph(name):
    module, inputs = w8a16.quantize(make_experts(name)), routed()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_same_outputs([run(compiled, inputs)], [run(module, inputs)], 1e-6)


def test_round_trip_into_a_fresh_module_and_a_skeleton(name, tmp_path):
    module, inputs = w8a16.quantize(make_experts(name)), routed()
    expected = run(module, inputs)
    w8a16.save(module, tmp_path / "experts.safetensors")
    fresh = w8a16.load(make_experts(name), tmp_path / "experts.safetensors")
    with torch.device("meta"):
        skeleton = make_experts(name)
    filled = w8a16.load(skeleton, tmp_path / "experts.safetensors")
    for loaded in (fresh, filled):
        assert type(loaded) is type(module)
        assert loaded.layouts == module.layouts
        assert torch.equal(run(loaded, inputs), expected)


def test_strict_state_dict(name):
    module, inputs = w8a16.quantize(make_experts(name)), routed()
    other = w8a16.quantize(make_experts(name))
    assert not torch.equal(run(other, inputs), run(module, inputs))
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(run(other, inputs), run(module, inputs))
    with pytest.raises(RuntimeError, match="down_proj: found a float weight"):
        other.load_state_dict(make_twin(module).state_dict())


def test_copies_have_the_same_class_and_bits(name):
    module, inputs = w8a16.quantize(make_experts(name)), routed()
    module.config = None  # the stand-in for a configuration cannot be pickled
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(twin) is type(module)
        assert torch.equal(run(twin, inputs), run(module, inputs))
        assert twin.codes_of("down_proj") is not module.codes_of("down_proj")


def test_dtype_moves_leave_codes_and_scales_alone(name):
    module = w8a16.quantize(make_experts(name))
    before = snapshot(module)
    for move in (nn.Module.half, nn.Module.bfloat16, nn.Module.double):
        move(module)
        for key, tensor in module.state_dict().items():
            if key in before and tensor.dtype in (torch.int8, torch.float32):
                assert torch.equal(tensor, before[key])
    assert module.weight_dtype == torch.float64
    assert module.down_proj.dtype == torch.float64


def test_dequantize_gives_the_class_and_the_shapes_back(name):
    floats = make_experts(name)
    shapes = {n: p.shape for n, p in floats.named_parameters()}
    inputs = routed()
    module = w8a16.quantize(floats)
    output = run(module, inputs)
    assert w8a16.dequantize(module) is floats
    assert type(floats) is experts_class(name)
    assert {n: p.shape for n, p in floats.named_parameters()} == shapes
    assert all(p.requires_grad and p.is_contiguous() for p in floats.parameters())
    assert_same_outputs([run(floats, inputs)], [output], 1e-5)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_one_projection_may_stay_float(name, implementation):
    module = w8a16.quantize(make_experts(name), exclude="down_proj")
    module.config._experts_implementation = implementation
    assert isinstance(module.down_proj, nn.Parameter)
    assert len(module.layouts) == 1
    inputs = routed()
    assert_same_outputs([run(module, inputs)], [run(make_twin(module), inputs)], 1e-5)


def test_hooks_and_the_training_flag_survive(name):
    module, seen = make_experts(name).eval(), []
    module.register_forward_hook(lambda *_: seen.append("after"))
    module = w8a16.quantize(module)
    run(module, routed())
    assert seen == ["after"]
    assert not module.training


def test_a_shared_module_is_converted_once(name):
    shared = make_experts(name)
    model = nn.ModuleDict({"a": shared, "b": shared})
    w8a16.quantize(model)
    assert model["a"] is model["b"]
    assert isinstance(model["a"], W8A16Experts)


@pytest.mark.parametrize("has_own_forward", [False, True])
def test_subclasses(name, has_own_forward):
    base = experts_class(name)

    class Doubled(base):
        def forward(self, *inputs):
            return 2 * super().forward(*inputs)

    class Renamed(base):
        pass

    floats = make_experts(name)
    floats.__class__ = Doubled if has_own_forward else Renamed
    module = w8a16.quantize(floats)
    assert isinstance(module, W8A16Experts)
    inputs = routed()
    assert_same_outputs([run(module, inputs)], [run(make_twin(module), inputs)], 1e-5)


def test_a_subclass_that_calls_the_original_gets_the_int8_forward(monkeypatch):
    class Doubled(experts_class("mixtral.MixtralExperts")):
        def forward(self, *inputs):
            return 2 * super().forward(*inputs)

    floats = make_experts("mixtral.MixtralExperts")
    floats.__class__ = Doubled
    module, calls = w8a16.quantize(floats), []
    original = W8A16Experts._project
    monkeypatch.setattr(W8A16Experts, "_project", lambda *a: calls.append(a[1]) or original(*a))
    run(module, routed())
    assert calls == ["gate_up_proj", "down_proj"]
