"""Recurrent nets in int8: layers, directions, projections, packed sequences, decoding step by step."""

import copy
import itertools
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import w8a16
from support.twins import (
    assert_equals_twin,
    assert_same_outputs,
    float_tensors,
    make_twin,
    quantize_with_twin,
)
from w8a16.errors import DtypeError
from w8a16.kernels import select
from w8a16.layers import recurrent

INPUT, HIDDEN, BATCH = 10, 12, 3
KINDS = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "projected": (nn.LSTM, {"proj_size": 5}),
    "gru": (nn.GRU, {}),
}
OPTIONS = {
    "plain": {},
    "all": {"num_layers": 3, "bidirectional": True, "batch_first": True},
    "no bias": {"bias": False, "num_layers": 2},
}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make(kind, **options):
    float_type, own = KINDS[kind]
    return float_type(INPUT, HIDDEN, **own, **options)


def sequence(module, steps, is_batched=True, batch=BATCH):
    shape = (batch, steps) if module.batch_first else (steps, batch)
    return torch.randn(*(shape if is_batched else (steps,)), INPUT)


def state_for(module, is_batched=True, batch=BATCH):
    layers = module.num_layers * (2 if module.bidirectional else 1)
    shape = (layers, batch) if is_batched else (layers,)
    hidden = torch.randn(*shape, module.proj_size or HIDDEN)
    return (hidden, torch.randn(*shape, HIDDEN)) if module.mode == "LSTM" else hidden


@every_kind
@every_option
@pytest.mark.parametrize("few_steps_only", [False, True], ids=["dequantized", "codes"])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("is_batched", [True, False])
def test_equals_its_twin(kind, options, few_steps_only, steps, is_batched, monkeypatch):
    """Both ways to compute, each for any number of steps."""
    monkeypatch.setattr(recurrent, "_WEIGHTS_A_STEP", 1 if few_steps_only else 1 << 30)
    model, twin = quantize_with_twin(make(kind, **options))
    x = sequence(model, steps, is_batched)
    batched = x if is_batched else x.unsqueeze(0 if model.batch_first else 1)
    assert model._pays_to_step(batched) == (few_steps_only or steps == 1)
    assert_equals_twin(model, twin, x)
    assert_equals_twin(model, twin, (x, state_for(model, is_batched)))


@every_kind
@every_option
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences(kind, options, enforce_sorted):
    model, twin = quantize_with_twin(make(kind, **options))
    lengths = (5, 3, 1) if enforce_sorted else (3, 5, 1)
    packed = pack_sequence([torch.randn(length, INPUT) for length in lengths], enforce_sorted)
    for inputs in ((packed,), (packed, state_for(model))):
        output, hidden = model(*inputs)
        expected, expected_hidden = twin(*inputs)
        assert isinstance(output, PackedSequence)
        for mine, other in zip(output, expected, strict=True):
            assert (mine is None and other is None) or torch.allclose(mine, other, rtol=1e-5, atol=1e-6)
        assert_same_outputs(float_tensors(hidden), float_tensors(expected_hidden), 1e-5)


@every_kind
def test_decoding_step_by_step_gives_the_whole_sequence(kind):
    model = w8a16.quantize(make(kind, num_layers=2))
    x, state, outputs = sequence(model, 6, batch=1), None, []
    for step in x.split(1):
        output, state = model(step, state)
        outputs.append(output)
    whole, final = model(x)
    assert_same_outputs([torch.cat(outputs), *float_tensors(state)], [whole, *float_tensors(final)], 1e-5)


@every_kind
def test_few_steps_use_the_codes(kind, monkeypatch):
    model = w8a16.quantize(make(kind, num_layers=2))
    monkeypatch.setattr(model, "dequantized", None)
    model(sequence(model, 1, batch=1))
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        model(sequence(model, 4))


@every_kind
def test_large_weights_use_the_codes_at_every_step(kind, monkeypatch):
    """Where nothing is recorded: a graph of all steps would be long."""
    model, twin = quantize_with_twin(make(kind, num_layers=2))
    x = sequence(model, 9)
    monkeypatch.setattr(recurrent, "_LARGE", model._hidden_weights())
    assert not model._pays_to_step(x)
    with torch.no_grad():
        assert model._pays_to_step(x) == (select("cpu").name != "reference")
        assert not model._pays_to_step(x.double())
        assert_equals_twin(model, twin, x)
        assert_equals_twin(model, twin, (x, state_for(model)))
        monkeypatch.setattr(recurrent, "_LARGE", model._hidden_weights() + 1)
        assert not model._pays_to_step(x)


@every_kind
def test_dropout_in_training(kind):
    """The same random numbers as the float module, and other ones than none; also for a single step."""
    model, twin = quantize_with_twin(make(kind, num_layers=3, dropout=0.5).train())
    for steps, batch in ((5, BATCH), (1, 1)):
        x = sequence(model, steps, batch=batch)
        assert_equals_twin(model, twin, x)
        assert not torch.allclose(model(x)[0], model.eval()(x)[0])
        model.train()


@every_kind
@pytest.mark.parametrize("weights_a_step", [1, 1 << 30])
def test_gradients_through_time(kind, weights_a_step, monkeypatch):
    monkeypatch.setattr(recurrent, "_WEIGHTS_A_STEP", weights_a_step)
    model, twin = quantize_with_twin(make(kind, num_layers=2, bidirectional=True))
    x, state, gradients = sequence(model, 4), state_for(model), []
    for each in (model, twin):
        leaves = [x.clone().requires_grad_(), *(t.clone().requires_grad_() for t in float_tensors(state))]
        hx = tuple(leaves[1:]) if model.mode == "LSTM" else leaves[1]
        output, _ = each(leaves[0], hx)
        (output[-1] * torch.linspace(0, 1, output.shape[-1])).sum().backward()
        biases = [p.grad for name, p in sorted(each.named_parameters()) if "bias" in name]
        gradients.append([leaf.grad for leaf in leaves] + biases)
    assert_same_outputs(*gradients, 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_kind
def test_steps_with_codes_are_rounded_once(kind, dtype, monkeypatch):
    """One layer in half precision: within half a unit of what float64 gives."""
    monkeypatch.setattr(recurrent, "_WEIGHTS_A_STEP", 1)
    model = w8a16.quantize(make(kind).to(dtype))
    exact = make_twin(copy.deepcopy(model).double())
    x = sequence(model, 3).to(dtype)
    expected = exact(x.double())[0]
    bound = torch.finfo(dtype).eps / 2 * expected.abs() + 1e-6
    assert ((model(x)[0].double() - expected).abs() <= bound).all()


def test_no_float_weight_is_kept_alive():
    floats = nn.LSTM(INPUT, HIDDEN, 2)
    references = [weakref.ref(p) for p in floats.parameters() if p.dim() > 1]
    w8a16.quantize(floats)
    assert len(references) == 4
    assert all(reference() is None for reference in references)


def test_what_model_code_calls():
    model = w8a16.quantize(nn.LSTM(INPUT, HIDDEN, 2))
    twin = make_twin(model)
    model.flatten_parameters()
    assert [[w.shape for w in layer] for layer in model.all_weights] == [
        [w.shape for w in layer] for layer in twin.all_weights
    ]
    for mine, other in zip(itertools.chain(*model.all_weights), twin._flat_weights, strict=True):
        assert torch.equal(mine + 0, other)
    assert repr(model).startswith("W8A16LSTM(10, 12, num_layers=2")


def test_a_changed_bias_is_used_at_once():
    model, twin = quantize_with_twin(nn.GRU(INPUT, HIDDEN))
    new = nn.Parameter(torch.randn(3 * HIDDEN))
    for each in (model, twin):
        each.bias_hh_l0 = new
    assert_equals_twin(model, twin, sequence(model, 4))


def test_back_to_float_in_the_order_of_the_constructor():
    names = [name for name, _ in nn.LSTM(INPUT, HIDDEN, 2, proj_size=5).named_parameters()]
    twin = make_twin(w8a16.quantize(nn.LSTM(INPUT, HIDDEN, 2, proj_size=5)))
    assert [name for name, _ in twin.named_parameters()] == names
    assert all(a is b for a, b in zip(twin._flat_weights, twin.parameters(), strict=True))


class Skipping(nn.LSTM):
    """Its own forward, written as torch's own is, around `_flat_weights`."""

    def forward(self, x, hx):
        self._update_flat_weights()
        settings = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        output, hidden, cell = torch.lstm(x, hx, self._flat_weights, *settings, self.batch_first)
        return output + x[..., :HIDDEN].sum(), (hidden, cell)


def test_a_subclass_that_uses_the_list_of_weights():
    model, twin = quantize_with_twin(Skipping(INPUT, HIDDEN))
    assert_equals_twin(model, twin, (sequence(model, 4), state_for(model)))


class TestErrors:
    @pytest.mark.parametrize(
        "shape, state, error, text",
        [
            ((4, 3, 2, 10), None, ValueError, "expected input with 2 or 3 dimensions, got 4"),
            ((4, 3, 9), None, RuntimeError, "expected a last dimension of 10, got 9"),
            ((4, 3, 10), (12,), RuntimeError, "expected hidden state with 3 dimensions, as the input, got 1"),
            ((4, 10), (1, 3, 12), RuntimeError, "expected hidden state with 2 dimensions"),
            ((4, 3, 10), (1, 2, 12), RuntimeError, r"Expected hidden size \(1, 3, 12\), got \[1, 2, 12\]"),
        ],
    )
    def test_shapes(self, shape, state, error, text):
        model = w8a16.quantize(nn.GRU(INPUT, HIDDEN))
        with pytest.raises(error, match=text):
            model(torch.randn(shape), None if state is None else torch.randn(state))

    def test_dtype(self):
        with pytest.raises(DtypeError, match=r"expected a float tensor, got torch\.int64"):
            w8a16.quantize(nn.GRU(INPUT, HIDDEN))(torch.ones(4, 3, INPUT, dtype=torch.long))


class TestCells:
    CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)

    @pytest.mark.parametrize("float_type", CELLS)
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("batch", [(3,), (), (0,)])
    def test_with_and_without_state(self, float_type, bias, batch):
        model, twin = quantize_with_twin(float_type(INPUT, HIDDEN, bias=bias))
        x, state = torch.randn(*batch, INPUT), torch.randn(*batch, HIDDEN)
        hx = (state, torch.randn(*batch, HIDDEN)) if float_type is nn.LSTMCell else state
        if batch == (0,):
            assert [t.shape for t in float_tensors(model(x))] == [t.shape for t in float_tensors(twin(x))]
            return
        assert_equals_twin(model, twin, x)
        assert_equals_twin(model, twin, (x, hx))

    def test_relu(self):
        model, twin = quantize_with_twin(nn.RNNCell(INPUT, HIDDEN, nonlinearity="relu"))
        assert_equals_twin(model, twin, torch.randn(3, INPUT))

    @pytest.mark.parametrize("float_type", CELLS)
    def test_errors(self, float_type):
        model, name = w8a16.quantize(float_type(INPUT, HIDDEN)), float_type.__name__
        with pytest.raises(ValueError, match=f"{name}: expected input with 1 or 2 dimensions, got 3"):
            model(torch.randn(4, 3, INPUT))
        wrong = torch.randn(2, HIDDEN)
        with pytest.raises(RuntimeError, match=rf"{name}: expected hidden state \[3, 12\], got \[2, 12\]"):
            model(torch.randn(3, INPUT), (wrong, wrong) if float_type is nn.LSTMCell else wrong)
