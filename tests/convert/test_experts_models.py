"""Tiny mixture-of-experts models of many families, from their configurations."""

import pytest
import torch

import w8a16
from support.twins import assert_equals_twin, make_twin
from w8a16.layers import W8A16Experts

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
COUNT = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1}
GROUPS = {"n_group": 1, "topk_group": 1}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

FAMILIES = {
    "Mixtral": LOCAL,
    "Qwen2Moe": COUNT | {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 1},
    "Qwen3Moe": COUNT | {"head_dim": 8, "decoder_sparse_step": 1},
    "DeepseekV2": ROUTED | LATENT | {"topk_method": "greedy"},
    "DeepseekV3": ROUTED | GROUPS | LATENT,
    "GptOss": LOCAL | {"head_dim": 8},
    "Olmoe": COUNT,
    "FlexOlmo": COUNT,
    "MiniMax": LOCAL | {"head_dim": 8},
    "GraniteMoe": LOCAL,
    "GraniteMoeShared": LOCAL | {"shared_intermediate_size": 24},
    "Phimoe": LOCAL,
    "Ernie4_5_Moe": {
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 0,
    },
    "Glm4Moe": ROUTED | GROUPS | {"head_dim": 8},
    "HunYuanMoEV1": {"num_experts": 4, "moe_topk": 2, "head_dim": 8},
    "Qwen3Next": COUNT
    | {
        "head_dim": 8,
        "shared_expert_intermediate_size": 24,
        "layer_types": ["linear_attention", "full_attention"],
    }
    | {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    | {"linear_value_head_dim": 8},
    "Lfm2Moe": COUNT | {"num_dense_layers": 0, "layer_types": ["full_attention", "full_attention"]},
    "Dots1": ROUTED | GROUPS | {"head_dim": 8},
    "Jamba": COUNT
    | {"expert_layer_period": 1, "expert_layer_offset": 0, "use_mamba_kernels": False}
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4},
    "JetMoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8, "num_key_value_heads": 2},
    "Llama4": LOCAL | {"head_dim": 8, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 1},
    "Dbrx": {},
    "AriaText": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
}
OF_ANOTHER_NAME = {"Llama4": "Llama4ForCausalLM", "AriaText": "AriaTextForCausalLM"}


def build(family):
    if family == "Dbrx":
        config = transformers.DbrxConfig(
            d_model=32,
            n_heads=4,
            n_layers=2,
            max_seq_len=64,
            vocab_size=99,
            attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            ffn_config={"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
        )
    else:
        name = {"Llama4": "Llama4TextConfig"}.get(family, f"{family}Config")
        config = getattr(transformers, name)(**SIZES | FAMILIES[family])
    model_class = getattr(transformers, OF_ANOTHER_NAME.get(family, f"{family}ForCausalLM"))
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 3:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_expert_is_int8_and_the_model_equals_its_twin(family):
    model = build(family)
    experts = [row for row in w8a16.plan(model).rows if "expert" in row.name and len(row.shape) == 3]
    assert experts or family in ("JetMoe", "Dbrx")  # those have other names, or matrices
    w8a16.quantize(model)
    assert not [n for n, p in model.named_parameters() if p.dim() == 3 and p.shape[0] > 1 and "conv" not in n]
    if family != "Dbrx":
        assert any(isinstance(module, W8A16Experts) for module in model.modules())
    with torch.no_grad():
        assert_equals_twin(model, make_twin(model), {"input_ids": torch.randint(3, 99, (2, 7))})


@pytest.mark.parametrize("family", ["Mixtral", "GptOss", "Llama4"])
def test_round_trip_into_a_fresh_model_and_a_skeleton(family, tmp_path):
    model = w8a16.quantize(build(family))
    w8a16.save(model, tmp_path / "model.safetensors")
    inputs = {"input_ids": torch.randint(3, 99, (2, 7))}
    with torch.no_grad():
        expected = model(**inputs).logits
        fresh = w8a16.load(build(family), tmp_path / "model.safetensors")
        assert torch.equal(fresh(**inputs).logits, expected)
        with torch.device("meta"):
            skeleton = build(family)
        filled = w8a16.load(skeleton, tmp_path / "model.safetensors").eval()
        assert torch.equal(filled(**inputs).logits, expected)


@pytest.mark.parametrize("family", ["Mixtral", "GptOss"])
def test_generation(family):
    model = w8a16.quantize(build(family))
    twin = make_twin(model)
    prompt = torch.randint(3, 99, (1, 5))
    tokens = [m.generate(prompt, max_new_tokens=6, do_sample=False) for m in (model, twin)]
    assert tokens[0].shape[1] > 5
    assert torch.equal(*tokens)


LARGE = {
    "Qwen3-235B-A22B": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            vocab_size=151936,
            hidden_size=4096,
            intermediate_size=12288,
            num_hidden_layers=94,
            num_attention_heads=64,
            num_key_value_heads=4,
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=1536,
        )
    ),
    "Llama-4-Maverick": lambda: transformers.Llama4ForCausalLM(
        transformers.Llama4TextConfig(
            vocab_size=202048,
            hidden_size=5120,
            intermediate_size=8192,
            intermediate_size_mlp=16384,
            num_hidden_layers=48,
            num_attention_heads=40,
            num_key_value_heads=8,
            head_dim=128,
            num_local_experts=128,
            num_experts_per_tok=1,
            interleave_moe_layer_step=2,
        )
    ),
}


@pytest.mark.parametrize("build_large", LARGE.values(), ids=LARGE)
def test_the_plan_of_a_model_beyond_any_memory(build_large):
    with torch.device("meta"):
        model = build_large().to(torch.bfloat16)
    plan = w8a16.plan(model)
    experts = [row for row in plan.rows if row.kind == "experts"]
    assert sum(row.bytes_before for row in experts) > 0.9 * plan.bytes_before
    assert {(row.tier, row.verdict) for row in experts} == {("compute", "int8")}
    assert plan.bytes_before > 400e9
    assert 0.5 < plan.bytes_after / plan.bytes_before < 0.502
