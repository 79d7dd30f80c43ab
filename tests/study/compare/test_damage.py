"""A layer that was damaged on purpose is the first to blame: 20 of 20 trials over three architectures."""

import copy
import random

import pytest
import torch
from torch import nn

import w8a16
from w8a16.study.compare import compare
from w8a16.study.compare.units import units_of, weights_of


class Block(nn.Module):
    """Two convolutions with batch normalisation, and a way around them."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        inner = self.act(self.norms[0](self.first(x)))
        return self.act(x + self.norms[1](self.second(inner)))


def resnet():
    stem = nn.Conv2d(3, 16, 3, padding=1)
    model = nn.Sequential(
        stem, Block(16), Block(16), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )
    return model, [(torch.randn(8, 3, 8, 8),)]


def bert():
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=80, max_position_embeddings=32, initializer_range=0.3, **sizes)
    tokens = torch.randint(80, (6, 12))
    return BertModel(config), [{"input_ids": tokens, "token_type_ids": tokens % 2}]


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=80, n_embd=32, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), [{"input_ids": torch.randint(80, (6, 12)), "use_cache": False}]


ARCHITECTURES = (bert, gpt2, resnet)


def damage(module, how):
    """Turn the signs in a quarter of the rows, or make the whole weight larger."""
    name = next(iter(module.layouts))
    if how == "signs":
        codes = module.codes_of(name)
        codes[torch.randperm(len(codes))[: max(2, len(codes) // 4)]] *= -1
    else:
        module.scales_of(name).mul_(1.25)


def trial(number):
    """Damage one layer of one model; the name of it, and what the comparison says."""
    torch.manual_seed(number)
    model, batches = ARCHITECTURES[number % 3]()
    model.eval()
    quantized = w8a16.quantize(copy.deepcopy(model))
    units = units_of(quantized)
    assert len(units) > 5
    victim = random.Random(number).choice(units)
    damage(victim.module, "signs" if number % 2 else "scales")
    in_memory = number % 4 < 2
    source = {} if in_memory else {"weights": weights_of(model)}
    return victim.name, compare(model if in_memory else None, quantized, batches, sensitivity=True, **source)


@pytest.mark.transformers
@pytest.mark.parametrize("number", range(20))
def test_the_damaged_layer_is_to_blame(number):
    victim, comparison = trial(number)
    assert comparison.blame_untried == ()
    assert sum(1 + len(blame.tied) for blame in comparison.blame) == len(comparison.modules)
    first, second = comparison.blame[:2]
    assert victim in (first.name, *first.tied)
    assert first.share > 0.5 > second.share + 0.2


@pytest.mark.transformers
def test_the_trials_are_no_foregone_conclusion():
    """Without damage nobody has most of the drift."""
    torch.manual_seed(0)
    model, batches = bert()
    quantized = w8a16.quantize(copy.deepcopy(model.eval()))
    comparison = compare(model, quantized, batches, sensitivity=True)
    assert comparison.blame[0].share < 0.5
