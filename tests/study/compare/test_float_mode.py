"""Int8 modules in float mode compute what the float modules do, and are int8 again afterwards."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import w8a16
from support.kinds import CASES
from support.twins import assert_unchanged, float_tensors, mlp, snapshot
from w8a16.errors import CheckpointError, ComparisonError, UsageError
from w8a16.layers import QuantizedModule
from w8a16.study.compare import float_mode
from w8a16.study.compare.units import weights_of


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def pair(model, **options):
    model = model.eval()
    return model, w8a16.quantize(copy.deepcopy(model), **options)


def assert_same(model, quantized, *inputs, source=None, exact=True, **options):
    """Float mode gives the float model's bits, and leaves the int8 model as it was."""
    before, classes = snapshot(quantized), [type(module) for module in quantized.modules()]
    keys = [list(module.__dict__) for module in quantized.modules()]
    parameters = [list(module._parameters) for module in quantized.modules()]
    with torch.no_grad():
        expected, int8 = (
            float_tensors(model(*inputs, **options)),
            float_tensors(quantized(*inputs, **options)),
        )
        with float_mode(quantized, source or weights_of(model)):
            found = float_tensors(quantized(*inputs, **options))
        again = float_tensors(quantized(*inputs, **options))
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(expected, found, strict=True):
        assert torch.equal(ours, theirs) if exact else torch.allclose(ours, theirs, atol=1e-5)
    assert any(not torch.equal(ours, theirs) for ours, theirs in zip(expected, int8, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(int8, again, strict=True))
    assert [type(module) for module in quantized.modules()] == classes
    assert [sorted(module.__dict__) for module in quantized.modules()] == [sorted(k) for k in keys]
    assert [list(module._parameters) for module in quantized.modules()] == parameters
    assert_unchanged(quantized, before)


@pytest.mark.parametrize("name", CASES)
def test_every_convolution_recurrent_net_and_bilinear_layer(name):
    case = CASES[name]
    assert_same(*pair(case.make()), *case.inputs())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_that_of_the_float_model(dtype):
    """Also where the source has float32 for a model of another dtype."""
    model, quantized = pair(mlp(64, 96, 8).to(dtype))
    assert_same(model, quantized, torch.randn(3, 64, dtype=dtype))
    wide = copy.deepcopy(model).float()
    assert_same(model, quantized, torch.randn(3, 64, dtype=dtype), source=weights_of(wide))


@pytest.mark.parametrize("options", [{}, {"kdim": 24, "vdim": 40}, {"add_bias_kv": True}])
def test_attention(options):
    model, quantized = pair(nn.MultiheadAttention(32, 4, batch_first=True, **options))
    query = torch.randn(2, 7, 32)
    key, value = (torch.randn(2, 5, options.get(name, 32)) for name in ("kdim", "vdim"))
    assert_same(model, quantized, query, key, value)
    if not options:
        assert_same(model, quantized, query, query, query, need_weights=False)


@pytest.mark.parametrize("padded", [False, True])
def test_encoders_keep_their_fast_path_and_its_zeros(padded):
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model, quantized = pair(nn.TransformerEncoder(layer, 2))
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = padded
    assert_same(model, quantized, torch.randn(3, 7, 32), src_key_padding_mask=padding, exact=False)


class TiedHead(nn.Module):
    """The head reads the table's weight without calling the table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.layer = nn.Linear(16, 16)

    def forward(self, tokens):
        return nn.functional.linear(self.layer(self.table(tokens)), self.table.weight)


def test_weights_read_without_a_call():
    assert_same(*pair(TiedHead()), torch.randint(50, (2, 5)))


def test_tied_weights_are_found_by_any_of_their_names():
    model = nn.Sequential(nn.Embedding(64, 16), nn.Linear(16, 64, bias=False))
    model[1].weight = model[0].weight
    model, quantized = pair(model)
    stored = {"0.weight": model[0].weight}
    assert_same(model, quantized, torch.randint(64, (2, 5)), source=lambda name: stored[name])

    def from_a_file(name):
        if name != "1.weight":
            raise CheckpointError(f"no weight {name}")
        return model[1].weight

    assert_same(model, quantized, torch.randint(64, (2, 5)), source=from_a_file)


class WithTables(nn.Module):
    """Parameters of its own, and int8 modules inside."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(6, 32))
        self.layer = nn.Linear(32, 32)
        self.again = self.layer

    def forward(self, x):
        return self.again(self.layer(x + self.position).relu())


def test_parameters_and_shared_modules():
    model, quantized = pair(WithTables())
    assert sum(isinstance(module, QuantizedModule) for module in quantized.modules()) == 2
    assert_same(model, quantized, torch.randn(2, 6, 32))


def test_effective_weights():
    assert_same(*pair(nn.Sequential(parametrizations.weight_norm(nn.Linear(32, 16)))), torch.randn(2, 32))


def test_a_table_that_shortens_its_rows_does_not_write_into_the_source():
    model, quantized = pair(nn.Embedding(20, 16, max_norm=0.5))
    source = copy.deepcopy(model)
    before = source.weight.clone()
    assert_same(copy.deepcopy(model), quantized, torch.arange(20), source=weights_of(source))
    assert torch.equal(source.weight, before)


def test_only_the_named_ones():
    model, quantized = pair(mlp(64, 96, 8))
    x = torch.randn(3, 64)
    with torch.no_grad():
        with float_mode(quantized, weights_of(model), ["2"]):
            mixed = quantized(x)
        assert torch.equal(mixed, model[2](quantized[1](quantized[0](x))))


def test_one_float_layer_at_a_time():
    """What was fetched before is dropped before the next is fetched, and all of it at the end."""
    model, quantized = pair(mlp(64, 96, 64, 8))
    alive = []

    def source(name):
        assert not any(reference() is not None for reference in alive)
        weight = model.state_dict()[name].clone()
        alive.append(weakref.ref(weight))
        return weight

    with torch.no_grad(), float_mode(quantized, source):
        quantized(torch.randn(3, 64))
    assert len(alive) == 3
    assert not any(reference() is not None for reference in alive)


def test_reading_the_dtype_before_a_call_fetches_once():
    """As T5 does for every layer."""
    model, quantized = pair(nn.Linear(64, 8))
    asked = []
    with torch.no_grad(), float_mode(quantized, lambda name: asked.append(name) or model.weight):
        quantized(torch.randn(3, 64).to(quantized.weight.dtype))
    assert asked == ["weight"]


def test_hooks_and_foreign_attributes_stay():
    model, quantized = pair(mlp(64, 96, 8))
    calls = []
    quantized[0].register_forward_hook(lambda module, arguments, output: calls.append(type(module).__name__))
    quantized[0].old_forward = quantized[0].forward  # as accelerate keeps it
    bound = quantized[0].old_forward.__func__
    x = torch.randn(3, 64)
    with torch.no_grad(), float_mode(quantized, weights_of(model)):
        quantized(x)
        assert torch.equal(quantized[0].old_forward(x), model[0](x))
    assert calls == ["W8A16LinearLayer"]
    assert quantized[0].old_forward.__func__ is bound


class Fails(Exception):
    pass


def test_an_error_inside_leaves_the_model_int8():
    model, quantized = pair(WithTables())
    before, classes = snapshot(quantized), [type(module) for module in quantized.modules()]

    def broken(name):
        if name == "layer.weight":  # the module around it is a float module at this moment
            raise Fails
        return weights_of(model)(name)

    with pytest.raises(Fails), torch.no_grad(), float_mode(quantized, broken):
        quantized(torch.randn(2, 6, 32))
    with pytest.raises(Fails), float_mode(quantized, weights_of(model)):
        raise Fails
    assert [type(module) for module in quantized.modules()] == classes
    assert_unchanged(quantized, before)
    assert_same(model, quantized, torch.randn(2, 6, 32))


def test_a_forward_may_keep_things():
    """A buffer that the module writes during its call stays as written."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(8, 8))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls = self.calls + 1
            self.last = x
            return x @ self.table

    model, quantized = pair(Counts())
    x = torch.randn(2, 8)
    with torch.no_grad(), float_mode(quantized, weights_of(model)):
        quantized(x)
        quantized(x)
    assert quantized.calls == 2
    assert quantized.last is x
    assert list(quantized._buffers) == ["calls", "table_int8_weights", "table_scales"]


def test_wrong_names_and_weights_are_named():
    model, quantized = pair(mlp(64, 96, 8))
    with (
        pytest.raises(UsageError, match="names: no int8 module is called '1', 'x'"),
        float_mode(quantized, weights_of(model), ["0", "x", "1"]),
    ):
        pass
    with (
        pytest.raises(UsageError, match="in float mode already"),
        float_mode(quantized, weights_of(model)),
        float_mode(quantized, weights_of(model), ["2"]),
    ):
        pass
    assert type(quantized[0]) is w8a16.W8A16LinearLayer
    x = torch.randn(3, 64)
    with pytest.raises(ComparisonError, match=r"weights: no float weight for '0.weight' \('0.weight'\)"):
        run(quantized, {}.__getitem__, x)
    with pytest.raises(ComparisonError, match=r"expected 0.weight \[96, 64\], got \[2, 2\]"):
        run(quantized, lambda name: torch.ones(2, 2), x)


def run(quantized, source, x):
    with torch.no_grad(), float_mode(quantized, source):
        quantized(x)


def test_inference_mode():
    model, quantized = pair(mlp(64, 96, 8))
    with torch.inference_mode():
        x = torch.randn(3, 64)
        with float_mode(quantized, lambda name: model.state_dict()[name].clone()):
            found = quantized(x)
        assert torch.equal(found, model(x))
