"""What must hold for every layer kind, for convolutions, recurrent nets and bilinear layers."""

import copy
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.kinds import CASES
from support.twins import (
    assert_equals_twin,
    assert_same_outputs,
    assert_unchanged,
    call,
    float_tensors,
    make_twin,
    quantize_with_twin,
    snapshot,
)
from w8a16.convert import plan
from w8a16.core import error_in_half_steps
from w8a16.layers import kind_of_quantized

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
TOLERANCES = {torch.float64: 1e-13, torch.bfloat16: 2**-6, torch.float16: 2**-9}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    torch.manual_seed(0)
    return request.param


def cast(inputs, dtype):
    if isinstance(inputs, tuple):
        return tuple(cast(each, dtype) for each in inputs)
    return inputs.to(dtype)


def assert_same_bits(model, other, inputs):
    for output, expected in zip(call(model, inputs), call(other, inputs), strict=True):
        assert torch.equal(output, expected)


@pytest.mark.parametrize("name", CASES)
def test_the_kind_and_its_tier(name):
    model = w8a16.quantize(CASES[name].make())
    expected = name.partition(",")[0]
    assert kind_of_quantized(model).name == expected
    is_compute = expected.endswith("cell") or expected == "bilinear"
    assert {row.tier for row in plan(model).rows} == {"compute" if is_compute else "storage"}


def test_equals_its_twin(case):
    model, twin = quantize_with_twin(case.make())
    assert type(twin) is case.float_type
    assert_equals_twin(model, twin, case.inputs())


def test_codes_are_within_half_a_step(case):
    floats = case.make()
    before = {name: p.detach().clone() for name, p in floats.named_parameters() if p.dim() > 1}
    model = w8a16.quantize(floats)
    assert set(model.layouts) == set(before)
    for name, weight in before.items():
        rows, scales = case.rows(weight), model.scales_of(name)
        assert scales.shape == (len(rows),)
        codes = model.codes_of(name).flatten(1)
        assert error_in_half_steps(rows, codes, scales).max() <= 1 + 2**-15
        assert codes.abs().amax(1).eq(127).all()
        assert getattr(model, name).shape == weight.shape


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_other_dtypes(case, dtype):
    """The twin rounds its weights to the dtype; in 16 bits the two may differ by that much."""
    model, twin = quantize_with_twin(case.make().to(dtype))
    inputs = cast(case.inputs(), dtype)
    assert_equals_twin(model, twin, inputs, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_it_computes_in_the_dtype_of_the_input(case, dtype):
    """As a layer that was kept in float32 in a model of half precision; biases follow."""
    model = w8a16.quantize(case.make())
    inputs = cast(case.inputs(), dtype)
    twin = make_twin(copy.deepcopy(model).to(dtype))
    assert_same_outputs(call(model, inputs), call(twin, inputs), TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_dtype_moves_leave_codes_and_scales_alone(case, dtype):
    model = w8a16.quantize(case.make())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert len(before) == 2 * len(model.layouts)
    model.to(dtype)
    for name, tensor in before.items():
        assert model.get_buffer(name).dtype == tensor.dtype
        assert torch.equal(model.get_buffer(name), tensor)
    assert {p.dtype for p in model.parameters()} <= {dtype}
    assert model.weight_dtype == dtype
    assert all(getattr(model, name).dtype == dtype for name in model.layouts)
    assert {output.dtype for output in call(model, cast(case.inputs(), dtype))} == {dtype}


def test_no_float_weight_stays_behind(case):
    model = w8a16.quantize(case.make())
    assert all(parameter.dim() == 1 for parameter in model.parameters())
    tensors = [each for each in vars(model).values() if isinstance(each, (list, tuple, torch.Tensor))]
    assert float_tensors(tensors) == []


def test_gradients_reach_every_input_and_the_biases(case):
    model, twin = quantize_with_twin(case.make())
    start, gradients = case.inputs(), []
    for each in (model, twin):
        torch.manual_seed(3)
        inputs = cast(start, torch.float32)
        leaves = [tensor.clone().requires_grad_() for tensor in float_tensors(inputs)]
        rest = iter(leaves)
        inputs = tuple(tuple(next(rest) for _ in x) if isinstance(x, tuple) else next(rest) for x in inputs)
        sum((output * torch.randn_like(output)).sum() for output in call(each, inputs)).backward()
        biases = [p.grad for name, p in sorted(each.named_parameters()) if p.dim() == 1]
        gradients.append([leaf.grad for leaf in leaves] + biases)
    assert_same_outputs(*gradients, 1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(case, copied):
    model = w8a16.quantize(case.make())
    again = copied(model)
    assert type(again) is type(model)
    assert_unchanged(again, snapshot(model))
    assert_same_bits(again, model, case.inputs())
    own = {buffer.data_ptr() for buffer in again.buffers()}
    assert own.isdisjoint(buffer.data_ptr() for buffer in model.buffers())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_saved_and_loaded(case, device, tmp_path):
    model = w8a16.quantize(case.make())
    w8a16.save(model, tmp_path)
    with torch.device(device):
        fresh = case.make()
    w8a16.load(fresh, tmp_path)
    assert type(fresh) is type(model)
    assert fresh.layouts == model.layouts
    assert_same_bits(fresh, model, case.inputs())
    assert_equals_twin(fresh, make_twin(fresh), case.inputs())


def test_strict_state_dict(case):
    model, other = w8a16.quantize(case.make()), w8a16.quantize(case.make())
    inputs = case.inputs()
    assert not torch.equal(call(other, inputs)[0], call(model, inputs)[0])
    other.load_state_dict(model.state_dict(), strict=True)
    assert_same_bits(other, model, inputs)
    with pytest.raises(RuntimeError, match="found a float weight"):
        other.load_state_dict(case.make().state_dict())


def test_hooks_and_the_training_flag_survive(case):
    floats, seen = case.make().eval(), []
    floats.register_forward_hook(lambda *_: seen.append("after"))
    floats.note = "kept"
    model = w8a16.quantize(floats)
    call(model, case.inputs())
    assert seen == ["after"]
    assert not model.training
    assert model.note == "kept"
    assert model is floats


@torch._dynamo.config.patch(allow_rnn=True)
def test_it_compiles_in_one_graph(case):
    model, inputs = w8a16.quantize(case.make()), case.inputs()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_same_outputs(call(compiled, inputs), call(model, inputs), 1e-6)


def test_a_shared_module_is_converted_once(case):
    shared = case.make()
    model = w8a16.quantize(nn.ModuleDict({"a": shared, "b": shared}))
    assert model["a"] is model["b"] is shared
    assert kind_of_quantized(shared) is not None
    twin = make_twin(model)
    assert twin["a"] is twin["b"]


def test_back_to_float(case):
    floats = case.make()
    shapes = {name: parameter.shape for name, parameter in floats.named_parameters()}
    attributes = set(vars(floats))
    w8a16.dequantize(w8a16.quantize(floats))
    assert type(floats) is case.float_type
    assert {name: parameter.shape for name, parameter in floats.named_parameters()} == shapes
    assert set(vars(floats)) == attributes
    inputs = case.inputs()
    before = call(floats, inputs)
    assert all(parameter.requires_grad for parameter in floats.parameters())
    with torch.no_grad():
        for parameter in floats.parameters():
            parameter.mul_(2)
    assert not torch.equal(call(floats, inputs)[0], before[0])


@pytest.mark.parametrize(
    "name", ["lstm", "lstm, one step", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell"]
)
def test_one_weight_may_stay_float(name):
    case = CASES[name]
    for excluded in [name for name, p in case.make().named_parameters() if p.dim() > 1]:
        model, twin = quantize_with_twin(case.make(), exclude=excluded)
        assert isinstance(getattr(model, excluded), nn.Parameter)
        assert excluded not in model.layouts
        assert_equals_twin(model, twin, case.inputs())
        half = cast(case.inputs(), torch.bfloat16)
        expected = call(twin.bfloat16(), half)
        assert_same_outputs(call(model, half), expected, TOLERANCES[torch.bfloat16])
        assert_same_outputs(call(model.bfloat16(), half), expected, TOLERANCES[torch.bfloat16])


@pytest.mark.parametrize("how", ["super", "own"])
def test_subclasses(case, how):
    base = case.float_type

    class Doubled(base):
        def forward(self, *inputs):
            output = super().forward(*inputs)
            return (2 * output[0], output[1]) if isinstance(output, tuple) else 2 * output

    class OwnForward(base):
        forward = base.forward

    floats = case.make()
    floats.__class__ = {"super": Doubled, "own": OwnForward}[how]
    model, twin = quantize_with_twin(floats)
    assert isinstance(model, (Doubled, OwnForward))
    assert set(model.layouts) == {n for n, p in twin.named_parameters() if p.dim() > 1}
    assert_equals_twin(model, twin, case.inputs())
