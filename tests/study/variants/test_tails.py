"""Heavy tails that float arithmetic does not notice: same outputs, larger steps, more int8 error."""

import copy

import pytest
import torch
from torch import nn

import w8a16
from w8a16.errors import ComparisonError, ModuleError, UsageError
from w8a16.study.metrics import sqnr_db
from w8a16.study.variants import apply_variant, float_rows, inject_tails, quantizers


class Block(nn.Module):
    """A pre-norm transformer block with a gated feed-forward layer, written out."""

    def __init__(self, width=32):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.gate, self.up = nn.Linear(width, 64), nn.Linear(width, 64)
        self.down = nn.Linear(64, width)

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.o(torch.softmax(self.q(h) @ self.k(h).mT, -1) @ self.v(h))
        h = self.norm2(x)
        return x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))


def transformer():
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block()).eval(), torch.randn(3, 7, 32)


def relu_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 40)).eval(), torch.randn(16, 64)


def convolutions():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)]
    return nn.Sequential(*layers).eval(), torch.randn(2, 3, 8, 8)


def torch_encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 5, 32)


@pytest.mark.parametrize("make", [transformer, relu_layers, convolutions, torch_encoder])
@torch.no_grad()
def test_float_outputs_stay_and_int8_outputs_get_worse(make):
    model, x = make()
    plain = copy.deepcopy(model)
    tails = inject_tails(model, x)
    assert tails.largest_change == 0
    fresh = torch.randn(x.shape)  # not the inputs that the pairs were tried on
    assert torch.equal(model(fresh), plain(fresh))
    before = sqnr_db(plain(x), w8a16.quantize(plain)(x))
    after = sqnr_db(model(x), w8a16.quantize(copy.deepcopy(model))(x))
    assert after < before - 10


@pytest.mark.parametrize("make, share", [(transformer, 1.0), (torch_encoder, 1.0), (relu_layers, 10 / 26)])
def test_all_that_reads_a_linear_channel_is_reached(make, share):
    model, x = make()
    first_reads_the_input = {"0.weight"}
    tails = inject_tails(model, x)
    assert tails.share == pytest.approx(share)
    names = {weight.name for weight in float_rows(model)}
    assert set(tails.weights) == (names if share == 1 else names - first_reads_the_input)


@pytest.mark.transformers
@pytest.mark.parametrize("family, least", [("GPT2", 0.25), ("Llama", 0.8), ("Bert", 0.05), ("Mamba", 0.3)])
@torch.no_grad()
def test_models_of_transformers(family, least):
    """Fused and grouped projections, swapped weights, gates; of a post-norm block only the values' side."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    sizes |= {"num_attention_heads": 4, "intermediate_size": 64} if family != "Mamba" else {}
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = getattr(transformers, f"{family}Model")(config).eval()
    inputs = {"input_ids": torch.randint(60, (2, 9))}
    reference = model(**inputs).last_hidden_state
    tails = inject_tails(model, inputs)
    assert tails.share > least
    assert torch.equal(model(**inputs).last_hidden_state, reference)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision(dtype):
    model, x = relu_layers()
    model, x = model.to(dtype), x.to(dtype)
    reference = model(x)
    assert inject_tails(model, x).weights == ("2.weight",)
    assert torch.equal(model(x), reference)


@torch.no_grad()
def test_the_error_rises_as_the_step_does():
    """Each row gets one weight 32 times as large, so its step follows, and the error is s / sqrt(12)."""
    model, x = relu_layers()
    old = model[2].weight.clone()
    inject_tails(model, x, factor=32)
    new = model[2].weight
    changed = (new != old).sum(1)
    assert changed.tolist() == [1] * 40
    assert torch.equal(new[new != old], 32 * old[new != old])
    step = new.abs().amax(1, keepdim=True) / 127
    assert float(step.mean()) > 5 * float(old.abs().amax(1).mean()) / 127
    error = (quantizers.per_channel(new) - new).square().mean()
    assert float(error) == pytest.approx(float((step.square() / 12).mean()), rel=0.05)
    # The norm's side costs nothing: a row scaled by a power of two keeps its codes.
    before = w8a16.quantize(nn.Sequential(*copy.deepcopy(relu_layers()[0])))[0].int8_weights
    assert torch.equal(w8a16.quantize(copy.deepcopy(model))[0].int8_weights, before)


@torch.no_grad()
def test_outliers_undo_it():
    model, x = transformer()
    plain = sqnr_db(model(x), w8a16.quantize(copy.deepcopy(model))(x))
    inject_tails(model, x)
    kept = sqnr_db(model(x), apply_variant(copy.deepcopy(model), "outliers_4")(x))
    assert kept > plain - 1


def test_the_seed_chooses_the_channels():
    states = []
    for seed in (0, 0, 1):
        model, x = relu_layers()
        inject_tails(model, x, seed=seed, channels=3)
        states.append(model[2].weight)
        assert ((model[2].weight != relu_layers()[0][2].weight).sum(1) == 3).all()
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_residual_and_a_curved_activation_are_left_alone():
    class PostNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x):
            h = self.norm(x)
            return h + self.down(nn.functional.gelu(self.up(h)))

    torch.manual_seed(0)
    model, x = PostNorm().eval(), torch.randn(4, 32)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ModuleError, match="no channel of this model can be scaled"):
        inject_tails(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_done_is_refused():
    model, x = relu_layers()
    for factor in (3.0, 1.0, 0.5, float("nan")):
        with pytest.raises(UsageError, match="expected a power of two above 1"):
            inject_tails(model, x, factor=factor)
    with pytest.raises(UsageError, match="channels: expected at least 1, got 0"):
        inject_tails(model, x, channels=0)
    with pytest.raises(ModuleError, match="got NaN or Inf for these inputs"):
        inject_tails(model, x * torch.inf)
    with pytest.raises(ComparisonError, match=r"cannot take batch 0 \(float32 \[2, 3\]\)"):
        inject_tails(model, torch.randn(2, 3))
