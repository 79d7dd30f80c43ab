"""torch's own attention and transformer modules read weights directly and have a fused fast path.

With int8 weights that path is not taken: the modules see that a weight is no plain tensor, and call
their layers, which are int8. The twins, which are float, take it.
"""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, count_int8, make_twin, quantize_with_twin
from w8a16.layers import quantizing

pytestmark = pytest.mark.filterwarnings("ignore:.*[Nn]ested.?[Tt]ensor.*:UserWarning")

WIDTH, HEADS, LENGTHS = 32, 4, (2, 5, 4)


def padding_mask():
    return torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None]


def causal_mask(length=5):
    return nn.Transformer.generate_square_subsequent_mask(length)


def tokens(batch_first=True, length=5):
    x = torch.randn(len(LENGTHS), length, WIDTH)
    return x if batch_first else x.transpose(0, 1)


class TestMultiheadAttention:
    def test_what_the_plan_says(self):
        """Both projections are int8; `out_proj` is a linear layer of its own."""
        rows = w8a16.plan(nn.MultiheadAttention(WIDTH, HEADS)).rows
        assert {row.name: (row.kind, row.tier, row.reason) for row in rows} == {
            "in_proj_weight": ("attention", "compute", "converted"),
            "out_proj.weight": ("linear", "compute", "converted"),
        }

    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("masks", ["none", "padding", "causal", "both"])
    @pytest.mark.parametrize("training", [True, False])
    def test_between_quantized_layers(self, batch_first, need_weights, masks, training):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.before, self.after = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
                self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)

            def forward(self, x, **options):
                x = self.before(x)
                x, weights = self.attention(x, x, x, **options)
                return self.after(x), weights

        model, twin = quantize_with_twin(Block().train(training))
        options = {"need_weights": need_weights}
        if masks in ("padding", "both"):
            options["key_padding_mask"] = torch.zeros(3, 5).masked_fill(padding_mask(), -torch.inf)
        if masks in ("causal", "both"):
            options["attn_mask"] = causal_mask()
        assert_equals_twin(model, twin, {"x": tokens(batch_first), **options})


CALLS = list(itertools.product([True, False], [True, False], [True, False]))


@pytest.mark.parametrize("training, grad, batch_first", CALLS)
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layer(training, grad, batch_first, norm_first):
    """In evaluation without gradients the twin takes the fused path."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=batch_first, norm_first=norm_first)
    layer, twin = quantize_with_twin(layer.train(training))
    assert count_int8(layer) == 4
    with torch.set_grad_enabled(grad):
        assert_equals_twin(layer, twin, tokens(batch_first))
        assert_equals_twin(layer, twin, {"src": tokens(batch_first), "src_key_padding_mask": padding_mask()})


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("training, grad, frozen", CALLS)
def test_encoder_with_a_padding_mask(nested, training, grad, frozen):
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=nested)
    model, twin = quantize_with_twin(model.train(training))
    model.requires_grad_(not frozen)
    twin.requires_grad_(not frozen)
    with torch.set_grad_enabled(grad):
        assert_equals_twin(model, twin, {"src": tokens(), "src_key_padding_mask": padding_mask()})
        assert_equals_twin(model, twin, {"src": tokens(), "mask": causal_mask(), "is_causal": True})


@pytest.mark.parametrize("exclude", [None, "*.in_proj_weight", "*.self_attn*", "*.linear*"])
def test_the_fused_path_is_taken_by_the_twin_only(monkeypatch, exclude):
    """Whichever weights are int8; and nothing is dequantized to get along without it."""
    calls = []
    for name in ("_transformer_encoder_layer_fwd", "_native_multi_head_attention"):
        real = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *a, real=real, name=name, **k: calls.append(name) or real(*a, **k)
        )
    real = quantizing.dequantize
    monkeypatch.setattr(quantizing, "dequantize", lambda *a: calls.append("dequantize") or real(*a))
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
    model, twin = quantize_with_twin(nn.TransformerEncoder(layer, 2).eval(), exclude=exclude)
    assert calls[0] == "dequantize", "the twin was made from dequantized weights"
    calls.clear()
    with torch.no_grad():
        model(tokens(), src_key_padding_mask=padding_mask())
        model(tokens())
        # A float attention module among int8 layers uses what torch has for it, where there is no mask.
        expected = ["_native_multi_head_attention"] * 2 if exclude == "*.self_attn*" else []
        assert calls == expected
        calls.clear()
        twin(tokens(), src_key_padding_mask=padding_mask())
        assert calls == ["_transformer_encoder_layer_fwd"] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_encoder_in_other_dtypes(dtype):
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True), 2)
    model, twin = quantize_with_twin(model.eval().to(dtype))
    x = tokens().to(dtype)
    with torch.no_grad():
        if dtype == torch.float64:
            assert_equals_twin(model, twin, x, 1e-13)
            return
        # The twin rounds its weights to bfloat16 and its sums inside the fused path; w8a16 rounds outputs
        # only. So it must be at least as close to what both stand for.
        exact = make_twin(copy.deepcopy(model).double())(x.double())
        ours, theirs = ((module(x).double() - exact).norm() / exact.norm() for module in (model, twin))
    assert 0 < ours <= theirs < 2**-5


def test_gradients_reach_the_input_through_an_encoder_in_training():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, 0.0, batch_first=True), 2)
    model, twin = quantize_with_twin(model.train())
    x, direction = tokens(), torch.randn(len(LENGTHS), 5, WIDTH)
    grads = []
    for module in (model, twin):
        leaf = x.clone().requires_grad_()
        module(leaf, src_key_padding_mask=padding_mask()).mul(direction).sum().backward()
        grads.append(leaf.grad)
    assert grads[1].norm() > 0
    assert (grads[0] - grads[1]).norm() <= 1e-5 * grads[1].norm()


@pytest.mark.parametrize("training, batch_first, norm_first", CALLS)
def test_decoder(training, batch_first, norm_first):
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, batch_first=batch_first, norm_first=norm_first)
    model, twin = quantize_with_twin(nn.TransformerDecoder(layer, 2).train(training))
    inputs = {
        "tgt": tokens(batch_first),
        "memory": tokens(batch_first, length=7),
        "tgt_mask": causal_mask(),
        "tgt_key_padding_mask": torch.zeros(3, 5).masked_fill(padding_mask(), -torch.inf),
    }
    assert_equals_twin(model, twin, inputs)


@pytest.mark.parametrize("training, batch_first, grad", CALLS)
def test_whole_transformer(training, batch_first, grad):
    model = nn.Transformer(WIDTH, HEADS, 1, 1, 64, batch_first=batch_first)
    model, twin = quantize_with_twin(model.train(training))
    assert count_int8(model) == 10
    with torch.set_grad_enabled(grad):
        assert_equals_twin(model, twin, (tokens(batch_first, length=7), tokens(batch_first)))


def test_layers_that_an_encoder_copied_are_not_tied():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True), 2)
    w8a16.quantize(model)
    first, second = (layer.linear1 for layer in model.layers)
    assert first.int8_weights is not second.int8_weights
    assert torch.equal(first.int8_weights, second.int8_weights)
    assert count_int8(copy.deepcopy(model)) == 8
    assert_equals_twin(model, make_twin(model), tokens())


class TestZerosInPaddedPositions:
    """Evaluation of a float encoder gives zeros there; whoever averages over positions relies on them."""

    @pytest.fixture(autouse=True)
    def _without_gradients(self):
        with torch.no_grad():
            yield

    def encoder(self, cls=nn.TransformerEncoder, **options):
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
        return cls(layer, 2, **options).eval()

    def test_as_in_the_float_model(self):
        model, twin = quantize_with_twin(self.encoder())
        for each in (model, twin):
            output = each(tokens(), src_key_padding_mask=padding_mask())
            assert (output[padding_mask()] == 0).all()
            assert (output[~padding_mask()] != 0).any(-1).all()

    @pytest.mark.parametrize(
        "change",
        [
            {"mask": torch.zeros(5, 5)},
            {"src_key_padding_mask": padding_mask().flip(1)},
            {"src_key_padding_mask": torch.zeros(3, 5).masked_fill(padding_mask(), -torch.inf)},
        ],
        ids=["mask", "not aligned", "float mask"],
    )
    @pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
    def test_with_other_masks(self, change):
        model, twin = quantize_with_twin(self.encoder())
        assert_equals_twin(model, twin, {"src": tokens(), "src_key_padding_mask": padding_mask(), **change})

    @pytest.mark.parametrize("excluded", ["layers.0.*", "layers.1.*"])
    def test_only_some_layers_int8(self, excluded):
        model, twin = quantize_with_twin(self.encoder(norm=nn.LayerNorm(WIDTH)), exclude=excluded)
        assert_equals_twin(model, twin, {"src": tokens(), "src_key_padding_mask": padding_mask()})

    def test_subclasses_copies_and_the_way_back(self, tmp_path):
        inputs = {"src": tokens(), "src_key_padding_mask": padding_mask()}
        model, twin = quantize_with_twin(self.encoder(DoubledEncoder))
        assert_equals_twin(model, twin, inputs)
        assert type(twin) is DoubledEncoder
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert isinstance(again, DoubledEncoder)
            assert_equals_twin(again, twin, inputs)
        w8a16.save(model, tmp_path)
        assert_equals_twin(w8a16.load(self.encoder(DoubledEncoder), tmp_path), twin, inputs)


class DoubledEncoder(nn.TransformerEncoder):
    """A forward of its own around torch's, and a weight of its own."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.scale = nn.Parameter(torch.rand(WIDTH, WIDTH))

    def forward(self, src, **options):
        return super().forward(src @ self.scale, **options) * 2
