"""State-space, recurrent and hybrid language models of transformers."""

from __future__ import annotations

from functools import partial

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import VOCABULARY, prompt, unpadded

TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDTH = {**TOKENS, "hidden_size": 64, "num_hidden_layers": 2}
HYBRID = {
    **WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}

recurrent = partial(transformer, family="state-space", inputs=prompt, generate=True)

ENTRIES: tuple[Entry, ...] = (
    recurrent("mamba", class_name="MambaForCausalLM", **WIDTH, state_size=8, note="reads dt_proj.weight"),
    recurrent(
        "mamba2",
        class_name="Mamba2ForCausalLM",
        **WIDTH,
        state_size=16,
        num_heads=8,
        head_dim=16,
        n_groups=2,
        chunk_size=8,
    ),
    recurrent("falcon_mamba", class_name="FalconMambaForCausalLM", **WIDTH, state_size=8),
    recurrent("rwkv", class_name="RwkvForCausalLM", inputs=unpadded, **WIDTH, context_length=64),
    recurrent(
        "xlstm",
        class_name="xLSTMForCausalLM",
        inputs=unpadded,
        **{**WIDTH, "hidden_size": 128},
        num_heads=4,
        num_blocks=2,
        chunk_size=8,
        autocast_kernel_dtype="float32",
    ),
    recurrent(
        "recurrent_gemma",
        class_name="RecurrentGemmaForCausalLM",
        inputs=unpadded,
        **{**HYBRID, "num_hidden_layers": 3},
        lru_width=64,
        attention_window_size=8,
    ),
    recurrent(
        "jamba",
        class_name="JambaForCausalLM",
        **HYBRID,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=8,
        use_mamba_kernels=False,
    ),
    recurrent(
        "zamba",
        class_name="ZambaForCausalLM",
        **{**HYBRID, "num_hidden_layers": 4},
        n_mamba_heads=2,
        mamba_d_state=8,
        mamba_dt_rank=8,
        use_mamba_kernels=False,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        published=False,
    ),
    recurrent(
        "zamba2",
        class_name="Zamba2ForCausalLM",
        **{**HYBRID, "num_hidden_layers": 4, "num_key_value_heads": 4},
        n_mamba_heads=8,
        mamba_headdim=16,
        mamba_d_state=16,
        mamba_ngroups=1,
        chunk_size=8,
        adapter_rank=8,
        num_mem_blocks=1,
        use_shared_attention_adapter=True,
        use_mem_rope=True,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        use_mamba_kernels=False,
    ),
    recurrent("bamba", class_name="BambaForCausalLM", **HYBRID, **MAMBA2, attn_layer_indices=[1]),
    recurrent(
        "granitemoehybrid",
        class_name="GraniteMoeHybridForCausalLM",
        **HYBRID,
        **MAMBA2,
        layer_types=["mamba", "attention"],
        shared_intermediate_size=64,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    recurrent("falcon_h1", class_name="FalconH1ForCausalLM", **HYBRID, **MAMBA2, mamba_d_ssm=128),
    recurrent(
        "nemotron_h",
        class_name="NemotronHForCausalLM",
        **HYBRID,
        head_dim=16,
        mamba_num_heads=8,
        mamba_head_dim=16,
        ssm_state_size=16,
        n_groups=1,
        chunk_size=8,
        layers_block_type=["mamba", "attention"],
        use_mamba_kernels=False,
    ),
    recurrent(
        "lfm2",
        class_name="Lfm2ForCausalLM",
        **HYBRID,
        layer_types=["conv", "full_attention"],
        block_auto_adjust_ff_dim=False,
    ),
)
