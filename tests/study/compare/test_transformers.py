"""Real architectures: fused experts, weights read without a call, encoder and decoder, weight norm."""

import copy

import pytest
import torch

import w8a16
from support.twins import assert_unchanged, snapshot
from w8a16.study.compare import Comparison, compare
from w8a16.study.compare.units import weights_of

pytestmark = pytest.mark.transformers
transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
TOKENS = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tokens(*shape):
    return torch.randint(3, 90, shape)


def mixtral():
    config = transformers.MixtralConfig(**SIZES, **TOKENS, num_key_value_heads=2, num_local_experts=4)
    return transformers.MixtralForCausalLM(config), {"input_ids": tokens(2, 7)}, "language"


def mamba():
    config = transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=100, state_size=8)
    return transformers.MambaForCausalLM(config), {"input_ids": tokens(2, 7)}, "language"


def t5():
    config = transformers.T5Config(
        vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    inputs = {"input_ids": tokens(2, 7), "labels": tokens(2, 5)}
    return transformers.T5ForConditionalGeneration(config), inputs, "seq2seq"


def wav2vec2():
    config = transformers.Wav2Vec2Config(
        **SIZES, vocab_size=20, conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2),
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(config), {"input_values": torch.randn(2, 800)}, "ctc"


@pytest.mark.parametrize("make", [mixtral, mamba, t5, wav2vec2])
def test_both_ways_find_the_same_and_change_nothing(make):
    torch.manual_seed(0)
    model, batch, task = make()
    quantized = w8a16.quantize(copy.deepcopy(model.eval()))
    before, classes = snapshot(quantized), [type(module) for module in quantized.modules()]
    options = {"task": task, "sensitivity": True, "layers_to_try": 3}
    ours = compare(model, quantized, [batch], **options)
    theirs = compare(None, quantized, [batch], weights=weights_of(model), **options)
    assert theirs == ours
    called = [module for module in ours.modules if module.depth is not None]
    assert len(called) > len(ours.modules) / 2
    assert all(module.own.sqnr_db > 30 for module in called)
    assert all(module.weight.largest_half_steps < 1.001 for module in ours.modules)
    assert len(ours.blame) == 3
    assert [type(module) for module in quantized.modules()] == classes
    assert_unchanged(quantized, before)
    assert repr(Comparison.from_dict(ours.to_dict())) == repr(ours)
