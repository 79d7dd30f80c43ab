"""Language models of transformers with latent attention (MLA), most of them mixtures of experts."""

from __future__ import annotations

from functools import partial

from zoo.entry import Entry
from zoo.mixtures import SIZES
from zoo.pretrained import transformer
from zoo.tensors import prompt

LATENT = {
    **SIZES,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "moe_intermediate_size": 64,
}
GROUPS = {
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}

latent = partial(transformer, family="mixture-of-experts", inputs=prompt, generate=True)

ENTRIES: tuple[Entry, ...] = (
    latent("deepseek_v2", class_name="DeepseekV2ForCausalLM", **LATENT, **GROUPS),
    latent("deepseek_v3", class_name="DeepseekV3ForCausalLM", **LATENT, **GROUPS),
    latent("glm4_moe_lite", class_name="Glm4MoeLiteForCausalLM", **LATENT, **{**GROUPS, "n_group": 1}),
    latent(
        "longcat_flash",
        class_name="LongcatFlashForCausalLM",
        **LATENT,
        ffn_hidden_size=128,
        expert_ffn_hidden_size=64,
        moe_topk=2,
        zero_expert_num=1,
        num_layers=2,
        head_dim=8,
    ),
)
