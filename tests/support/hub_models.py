"""Tiny models of transformers, one for each kind of layer and of tie, with inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

IDS = torch.tensor([[1, 5, 9, 63]])
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
DECODER = {**TEXT, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def llama(**options: Any) -> nn.Module:
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{**DECODER, "tie_word_embeddings": True, **options})
    )


def bert() -> nn.Module:
    import transformers

    return transformers.BertModel(transformers.BertConfig(**TEXT))


def bert_masked() -> nn.Module:
    """Its head shares the bias with a module that has no weight of its own."""
    import transformers

    return transformers.BertForMaskedLM(transformers.BertConfig(**TEXT))


def gpt2() -> nn.Module:
    """Linear layers that store `[in, out]`; head and embedding tied."""
    import transformers

    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32)
    )


def t5() -> nn.Module:
    """Three modules hold one embedding; some weights are kept in float32."""
    import transformers

    config = transformers.T5Config(
        vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def mixtral() -> nn.Module:
    """Experts that are stored one by one and fused on loading."""
    import transformers

    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**DECODER, num_local_experts=4))


def gpt_oss() -> nn.Module:
    """Experts that lie `[E, in, out]`, with biases."""
    import transformers

    return transformers.GptOssForCausalLM(
        transformers.GptOssConfig(**DECODER, head_dim=16, num_local_experts=4)
    )


def siglip() -> nn.Module:
    """A convolution, an attention of torch, and a parameter of its own."""
    import transformers

    config = transformers.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return transformers.SiglipVisionModel(config)


def wav2vec2() -> nn.Module:
    """Convolutions, one with a computed weight."""
    import transformers

    config = transformers.Wav2Vec2Config(
        vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        conv_dim=(32, 32), conv_stride=(2, 2), conv_kernel=(3, 3), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, do_stable_layer_norm=False, feat_extract_norm="layer",
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(config)


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor]]] = {
    "llama": (llama, {"input_ids": IDS}),
    "bert": (bert, {"input_ids": IDS}),
    "bert_masked": (bert_masked, {"input_ids": IDS}),
    "gpt2": (gpt2, {"input_ids": IDS}),
    "t5": (t5, {"input_ids": IDS, "decoder_input_ids": IDS}),
    "mixtral": (mixtral, {"input_ids": IDS}),
    "gpt_oss": (gpt_oss, {"input_ids": IDS}),
    "siglip": (
        siglip,
        {"pixel_values": torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))},
    ),
    "wav2vec2": (wav2vec2, {"input_values": torch.randn(1, 200, generator=torch.Generator().manual_seed(0))}),
}


def make(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model with weights that are the same every time."""
    torch.manual_seed(0)
    return MODELS[name][0]().to(dtype).eval()


def outputs(model: nn.Module, name: str) -> list[torch.Tensor]:
    """What a model makes of its inputs, in its dtype."""
    dtype = model.dtype
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in MODELS[name][1].items()}
    with torch.no_grad():
        return [value for value in model(**inputs).values() if isinstance(value, torch.Tensor)]
