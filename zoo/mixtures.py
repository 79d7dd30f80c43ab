"""Mixtures of experts of transformers with ordinary attention."""

from __future__ import annotations

from functools import partial

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import VOCABULARY, prompt, two_texts

TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES = {
    **TOKENS,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LOCAL = {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    **SIZES,
    "head_dim": 16,
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
"""As DeepSeek routes: groups of experts, one for all tokens, the first layer without any."""
NAMED = {**SIZES, "num_experts": 4, "num_experts_per_tok": 2}

mixture = partial(transformer, family="mixture-of-experts", inputs=prompt, generate=True)

ENTRIES: tuple[Entry, ...] = (
    mixture("mixtral", class_name="MixtralForCausalLM", **LOCAL),
    mixture(
        "qwen2_moe",
        class_name="Qwen2MoeForCausalLM",
        **NAMED,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
    ),
    mixture("qwen3_moe", class_name="Qwen3MoeForCausalLM", **NAMED, moe_intermediate_size=64, head_dim=16),
    mixture("gpt_oss", class_name="GptOssForCausalLM", **LOCAL, head_dim=16, sliding_window=6),
    mixture("olmoe", class_name="OlmoeForCausalLM", **NAMED),
    mixture("flex_olmo", class_name="FlexOlmoForCausalLM", **NAMED),
    mixture(
        "dbrx",
        published={"attn_config": {"kv_n_heads": 8, "rope_theta": 5e5}},
        class_name="DbrxForCausalLM",
        **TOKENS,
        d_model=64,
        n_heads=4,
        n_layers=2,
        max_seq_len=64,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        ffn_config={"hidden_size": 64, "ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    mixture("phimoe", class_name="PhimoeForCausalLM", **LOCAL),
    mixture(
        "llama4_text",
        class_name="Llama4ForCausalLM",
        **LOCAL,
        head_dim=16,
        intermediate_size_mlp=128,
        interleave_moe_layer_step=2,
        attention_chunk_size=8,
        note="experts stored input-major, multiplied in one batch",
    ),
    mixture(
        "minimax",
        class_name="MiniMaxForCausalLM",
        **LOCAL,
        head_dim=16,
        block_size=4,
        layer_types=["linear_attention", "full_attention"],
    ),
    mixture("minimax_m2", class_name="MiniMaxM2ForCausalLM", **LOCAL, head_dim=16, rotary_dim=8),
    mixture("granitemoe", class_name="GraniteMoeForCausalLM", **LOCAL),
    mixture(
        "granitemoeshared", class_name="GraniteMoeSharedForCausalLM", **LOCAL, shared_intermediate_size=64
    ),
    mixture("jetmoe", class_name="JetMoeForCausalLM", **LOCAL, kv_channels=16),
    mixture(
        "glm4_moe",
        class_name="Glm4MoeForCausalLM",
        **ROUTED,
    ),
    mixture(
        "dots1",
        published={"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6},
        class_name="Dots1ForCausalLM",
        **ROUTED,
    ),
    mixture(
        "qwen3_next",
        class_name="Qwen3NextForCausalLM",
        **NAMED,
        head_dim=16,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"],
    ),
    mixture(
        "ernie4_5_moe",
        class_name="Ernie4_5_MoeForCausalLM",
        **SIZES,
        moe_intermediate_size=64,
        moe_num_experts=4,
        moe_k=2,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
    ),
    mixture(
        "hunyuan_v1_moe",
        published={"head_dim": 128, "num_key_value_heads": 8, "num_experts": 64, "moe_topk": 8},
        class_name="HunYuanMoEV1ForCausalLM",
        **SIZES,
        head_dim=16,
        num_experts=4,
        moe_topk=2,
    ),
    mixture(
        "lfm2_moe",
        published={"layer_types": ["conv", "conv", "conv", "full_attention"] * 8},
        class_name="Lfm2MoeForCausalLM",
        **NAMED,
        moe_intermediate_size=64,
        num_dense_layers=1,
        layer_types=["conv", "full_attention"],
    ),
    mixture(
        "switch_transformers",
        class_name="SwitchTransformersForConditionalGeneration",
        inputs=two_texts,
        vocab_size=VOCABULARY,
        d_model=64,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        num_experts=4,
        expert_capacity=16,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    ),
    mixture(
        "nllb_moe",
        class_name="NllbMoeForConditionalGeneration",
        inputs=two_texts,
        vocab_size=VOCABULARY,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        num_experts=4,
        expert_capacity=16,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    ),
)
