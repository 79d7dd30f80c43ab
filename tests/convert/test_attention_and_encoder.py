"""torch's own attention and transformer modules read weights directly and have a fused fast path."""

import copy
import itertools

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, count_int8, make_twin, quantize_with_twin

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
        """Both projections stay float, with a reason: neither is a plain nn.Linear."""
        rows = w8a16.plan(nn.MultiheadAttention(WIDTH, HEADS)).rows
        assert {row.name: row.reason for row in rows} == {
            "in_proj_weight": "unknown_kind",
            "out_proj.weight": "subclass",
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
    """Evaluation without gradients takes the fused path, which reads `linear1.weight` as a tensor."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=batch_first, norm_first=norm_first)
    layer, twin = quantize_with_twin(layer.train(training))
    assert count_int8(layer) == 2
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


def test_the_fused_path_is_really_taken(monkeypatch):
    """Otherwise the tests above would compare the slow path with itself."""
    calls = []
    fused = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(
        torch, "_transformer_encoder_layer_fwd", lambda *a, **k: calls.append(a[0]) or fused(*a, **k)
    )
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
    model = w8a16.quantize(nn.TransformerEncoder(layer, 2)).eval()
    with torch.no_grad():
        model(tokens(), src_key_padding_mask=padding_mask())
    assert len(calls) == 2
    assert all(x.is_nested for x in calls)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_encoder_in_other_dtypes(dtype):
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True), 2)
    model, twin = quantize_with_twin(model.eval().to(dtype))
    # The fused path uses the rounded weight, as the twin does, so even bfloat16 is close.
    tolerance = {torch.bfloat16: 2**-9, torch.float64: 1e-13}[dtype]
    with torch.no_grad():
        assert_equals_twin(model, twin, tokens().to(dtype), tolerance)


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
    assert count_int8(model) == 4
    with torch.set_grad_enabled(grad):
        assert_equals_twin(model, twin, (tokens(batch_first, length=7), tokens(batch_first)))


def test_layers_that_an_encoder_copied_are_not_tied():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True), 2)
    w8a16.quantize(model)
    first, second = (layer.linear1 for layer in model.layers)
    assert first.int8_weights is not second.int8_weights
    assert torch.equal(first.int8_weights, second.int8_weights)
    assert count_int8(copy.deepcopy(model)) == 4
    assert_equals_twin(model, make_twin(model), tokens())
