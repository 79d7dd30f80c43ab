"""`nn.MultiheadAttention` in int8: every option of the float module, in every dtype."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_unchanged, count_int8, quantize_with_twin, snapshot
from w8a16.core import error_in_half_steps
from w8a16.errors import DtypeError, ShapeError, UsageError
from w8a16.layers import W8A16MultiheadAttention, quantizing

WIDTH, HEADS, BATCH, QUERIES, KEYS = 32, 4, 3, 5, 7
OPTIONS = {
    "plain": {},
    "no_bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True},
    "widths": {"kdim": 24, "vdim": 40},
    "all": {"kdim": 24, "vdim": 40, "bias": False, "add_bias_kv": True, "add_zero_attn": True},
}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 2**-6, torch.float16: 2**-9}
FLAGS = [
    (batch_first, need_weights, average)
    for batch_first, (need_weights, average) in itertools.product(
        [True, False], [(False, True), (True, True), (True, False)]
    )
]


def attention(**options):
    """A fresh one has zeros for biases, and those would hide a bias at the wrong place."""
    module = nn.MultiheadAttention(WIDTH, HEADS, **options)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bias" in name and not parameter.is_meta:
                parameter.normal_()
    return module


def sequence(length, width, batch_first, is_batched=True):
    shape = (BATCH, length) if batch_first else (length, BATCH)
    return torch.randn(*(shape if is_batched else (length,)), width)


def inputs(options, batch_first, is_batched=True):
    """Queries, keys and values, in all the ways in which they can be the same tensor."""
    x, y = (sequence(length, WIDTH, batch_first, is_batched) for length in (QUERIES, KEYS))
    key, value = (
        sequence(KEYS, options.get(name, WIDTH), batch_first, is_batched) for name in ("kdim", "vdim")
    )
    different = [(x, key, value)]
    return different if "kdim" in options else [*different, (x, x, x), (x, y, y), (x, x, x.clone())]


def masks(queries, keys, batch):
    """Every form of `attn_mask` and `key_padding_mask`; no query is left without a key."""
    blocked = torch.rand(batch * HEADS, queries, keys) > 0.7
    blocked[..., 0] = False
    padding = torch.arange(keys).expand(batch, keys) >= keys - torch.arange(batch)[:, None]
    causal = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    yield {}
    yield {"attn_mask": blocked[0], "key_padding_mask": padding}
    yield {"attn_mask": blocked}
    yield {"attn_mask": torch.randn(queries, keys)}
    yield {
        "attn_mask": torch.randn(batch * HEADS, queries, keys),
        "key_padding_mask": torch.zeros(batch, keys).masked_fill(padding, -torch.inf),
    }
    yield {"attn_mask": causal, "is_causal": True}
    yield {"attn_mask": causal, "is_causal": True, "key_padding_mask": padding}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("batch_first, need_weights, average_attn_weights", FLAGS)
def test_equals_its_twin_with_every_mask(options, batch_first, need_weights, average_attn_weights):
    model, twin = quantize_with_twin(attention(batch_first=batch_first, **options).eval())
    flags = {"need_weights": need_weights, "average_attn_weights": average_attn_weights}
    for query, key, value in inputs(options, batch_first):
        for each in masks(QUERIES, key.shape[1 if batch_first else 0], BATCH):
            with torch.no_grad():  # where the twin may take torch's fused path
                assert_equals_twin(model, twin, {"query": query, "key": key, "value": value, **flags, **each})


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("batch_first, need_weights, average_attn_weights", FLAGS)
def test_one_sequence_without_a_batch(options, batch_first, need_weights, average_attn_weights):
    model, twin = quantize_with_twin(attention(batch_first=batch_first, **options).eval())
    flags = {"need_weights": need_weights, "average_attn_weights": average_attn_weights}
    for query, key, value in inputs(options, batch_first, is_batched=False):
        for each in masks(QUERIES, key.shape[0], 1):
            if "key_padding_mask" in each:
                each["key_padding_mask"] = each["key_padding_mask"][0]
            assert_equals_twin(model, twin, {"query": query, "key": key, "value": value, **flags, **each})


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("need_weights", [True, False])
def test_in_every_dtype(dtype, options, need_weights):
    """The twin rounds its weights to the dtype, so in 16 bits the two differ by that much."""
    model, twin = quantize_with_twin(attention(**options).to(dtype).eval())
    for call in inputs(options, batch_first=False):
        query, key, value = (x.to(dtype) for x in call)
        each = {"query": query, "key": key, "value": value, "need_weights": need_weights}
        assert_equals_twin(model, twin, each, TOLERANCES[dtype])


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_in_training(need_weights):
    """The same random numbers as the float module, and other ones than none."""
    model, twin = quantize_with_twin(attention(dropout=0.4).train())
    x = sequence(QUERIES, WIDTH, False)
    each = {"query": x, "key": x, "value": x, "need_weights": need_weights}
    assert_equals_twin(model, twin, each)
    assert not torch.allclose(model(**each)[0], model.eval()(**each)[0])


def test_gradients_reach_query_key_and_value():
    model, twin = quantize_with_twin(attention(kdim=24, vdim=40))
    start, grads = inputs(OPTIONS["widths"], False)[0], []
    direction = torch.randn(QUERIES, BATCH, WIDTH)
    for module in (model, twin):
        leaves = [x.clone().requires_grad_() for x in start]
        module(*leaves)[0].mul(direction).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for grad, expected in zip(*grads, strict=True):
        assert expected.norm() > 0
        assert (grad - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_compiles_to_one_graph(options):
    model = w8a16.quantize(attention(**options).eval())
    call = inputs(options, batch_first=False)[0]
    with torch.no_grad():
        expected = model(*call)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(*call)
    for output, reference in zip(compiled, expected, strict=True):
        torch.testing.assert_close(output, reference, rtol=1e-5, atol=1e-6)


def test_autocast():
    model, twin = quantize_with_twin(attention(add_bias_kv=True))
    x = sequence(QUERIES, WIDTH, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x, x, x)[0].dtype == torch.bfloat16
        assert_equals_twin(model, twin, (x, x, x), 2**-6)


class TestNested:
    def nested(self):
        return torch.nested.as_nested_tensor([torch.randn(length, WIDTH) for length in (2, 5, 4)])

    @pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
    @pytest.mark.parametrize(
        "need_weights, average_attn_weights", list(itertools.product([True, False], repeat=2))
    )
    def test_as_the_float_module(self, need_weights, average_attn_weights):
        model, twin = quantize_with_twin(attention(batch_first=True).eval())
        x = self.nested()
        with torch.no_grad():
            output, weights = model(x, x, x, None, need_weights, None, average_attn_weights)
            expected, expected_weights = twin(x, x, x, None, need_weights, None, average_attn_weights)
        for part, reference in zip(output.unbind(), expected.unbind(), strict=True):
            torch.testing.assert_close(part, reference, rtol=1e-5, atol=1e-6)
        assert (weights is None) == (expected_weights is None) == (not need_weights)
        if need_weights:
            torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-6)

    @pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
    def test_what_it_cannot_do_is_refused(self):
        model, x = w8a16.quantize(attention(batch_first=True)), self.nested()
        with pytest.raises(UsageError, match="one and the same tensor"):
            model(x, x, self.nested())
        with pytest.raises(UsageError, match="expected no masks"):
            model(x, x, x, attn_mask=torch.zeros(5, 5))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_codes_are_within_half_a_step(options):
    module = attention(**options)
    floats = {name: p.detach().clone() for name, p in module.named_parameters() if p.dim() > 1}
    w8a16.quantize(module)
    del floats["out_proj.weight"]
    assert set(module.layouts) == set(floats)
    for name, weight in floats.items():
        codes, scales = module.codes_of(name), module.scales_of(name)
        assert codes.shape == weight.shape
        rows = weight.reshape(-1, weight.shape[-1])
        assert error_in_half_steps(rows, codes.view(rows.shape), scales.view(-1)).max() <= 1 + 2**-15


@pytest.mark.parametrize("excluded", ["in_proj_weight", "out_proj", "bias_k"])
def test_a_weight_that_stays_float(excluded):
    model, twin = quantize_with_twin(attention(add_bias_kv=True), exclude=excluded)
    names = {name.partition(".")[0] for name, p in model.named_parameters() if p.dim() > 1}
    assert names == {excluded}
    for call in inputs({}, batch_first=False):
        assert_equals_twin(model, twin, call)


def test_only_some_of_separate_projections():
    model, twin = quantize_with_twin(attention(kdim=24), exclude="k_proj_weight")
    assert set(model.layouts) == {"q_proj_weight", "v_proj_weight"}
    assert_equals_twin(model, twin, inputs({"kdim": 24}, False)[0])


def test_nothing_is_dequantized(monkeypatch):
    """Whoever is handed a weight: the module itself, or torch's function, with one of the two projections."""

    def refuse(*arguments):
        raise AssertionError("a weight was dequantized")

    x = sequence(QUERIES, WIDTH, False)
    models = [
        w8a16.quantize(attention().eval(), exclude=each) for each in (None, "in_proj_weight", "out_proj")
    ]
    monkeypatch.setattr(quantizing, "dequantize", refuse)
    with pytest.raises(AssertionError, match="a weight was dequantized"):
        models[0].in_proj_weight.sum()
    for model in models:
        assert count_int8(model) > 0
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                model(x, x, x)


def test_out_proj_is_called_as_a_module():
    model = w8a16.quantize(attention())
    calls = []
    model.out_proj.register_forward_hook(lambda module, args, output: calls.append(args[0]))
    x = sequence(QUERIES, WIDTH, False)
    model(x, x, x)
    assert [call.shape for call in calls] == [(QUERIES, BATCH, WIDTH)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_copies(copied, options):
    model = w8a16.quantize(attention(**options))
    again = copied(model)
    assert type(again) is W8A16MultiheadAttention
    assert_unchanged(again, snapshot(model))
    call = inputs(options, False)[0]
    assert torch.equal(again(*call)[0], model(*call)[0])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_saved_and_loaded(options, device, tmp_path):
    model = w8a16.quantize(attention(**options))
    w8a16.save(model, tmp_path)
    with torch.device(device):
        fresh = attention(**options)
    w8a16.load(fresh, tmp_path)
    stored, loaded = model.state_dict(), fresh.state_dict()
    assert sorted(loaded) == sorted(stored)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    call = inputs(options, False)[0]
    assert torch.equal(fresh(*call)[0], model(*call)[0])
    other = w8a16.quantize(attention(**options))
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(*call)[0], model(*call)[0])


def test_back_to_float():
    model = attention(add_bias_kv=True)
    names = [name for name, _ in model.named_parameters()]
    w8a16.dequantize(w8a16.quantize(model))
    assert type(model) is nn.MultiheadAttention
    assert sorted(name for name, _ in model.named_parameters()) == sorted(names)
    x = sequence(QUERIES, WIDTH, False)
    assert model(x, x, x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_moves_leave_codes_and_scales_alone(dtype):
    model = w8a16.quantize(attention())
    before = {name: model.get_buffer(name).clone() for name, _ in model.named_buffers(recurse=False)}
    model.to(dtype)
    for name, tensor in before.items():
        assert torch.equal(model.get_buffer(name), tensor)
        assert model.get_buffer(name).dtype == tensor.dtype
    assert model.in_proj_bias.dtype == model.in_proj_weight.dtype == dtype
    x = sequence(QUERIES, WIDTH, False).to(dtype)
    assert model(x, x, x)[0].dtype == dtype


class Pooling(nn.MultiheadAttention):
    """A subclass with a forward of its own, which hands the weights to torch's function."""

    def forward(self, x):
        options = {"training": self.training, "need_weights": False}
        return nn.functional.multi_head_attention_forward(
            *(x.mean(0, keepdim=True), x, x, self.embed_dim, self.num_heads),
            *(self.in_proj_weight, self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn),
            *(self.dropout, self.out_proj.weight, self.out_proj.bias),
            **options,
        )[0]


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}])
def test_a_subclass_with_its_own_forward(options):
    model, twin = quantize_with_twin(Pooling(WIDTH, HEADS, **options))
    assert isinstance(model, Pooling)
    assert isinstance(model, W8A16MultiheadAttention)
    assert_equals_twin(model, twin, sequence(QUERIES, WIDTH, False))
    again = pickle.loads(pickle.dumps(model))
    assert_equals_twin(again, twin, sequence(QUERIES, WIDTH, False))


class TestErrors:
    def refused(self, error, text, *call, **options):
        with pytest.raises(error, match=text):
            w8a16.quantize(attention())(*call, **options)

    def test_inputs_that_do_not_fit_each_other(self):
        x = torch.randn(QUERIES, BATCH, WIDTH)
        self.refused(ShapeError, "same batch size", x, x[:, :1], x[:, :1])
        self.refused(ShapeError, "a value for every key", x, x, x[:2])
        self.refused(ShapeError, "3 \\(or all with 2\\) dimensions", x, x[0], x[0])
        self.refused(ShapeError, "32", x[..., :5], x, x)

    def test_masks(self):
        x = torch.randn(QUERIES, BATCH, WIDTH)
        self.refused(
            ShapeError, r"attn_mask: expected \[5, 5\] or \[12, 5, 5\]", x, x, x, attn_mask=torch.ones(5, 4)
        )
        self.refused(ShapeError, "key_padding_mask", x, x, x, key_padding_mask=torch.ones(5, 3))
        self.refused(
            DtypeError, "expected bool or float", x, x, x, attn_mask=torch.ones(5, 5, dtype=torch.int)
        )
        self.refused(UsageError, "hint about attn_mask", x, x, x, is_causal=True)
