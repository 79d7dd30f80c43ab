"""Scales in the dtype of the model: rounded first, and every weight within half a step of them."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from w8a16.checkpoint import open_shards
from w8a16.checkpoint.streaming import plan_checkpoint
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors import export, unpack_rows
from w8a16.integrations.compressed_tensors.rounded import quantize_to
from w8a16.integrations.transformers_folders import streaming_skeleton

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "intermediate_size": 48,
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_every_weight_is_within_half_a_step(dtype, groups, size):
    weights = torch.randn(300, 32, generator=torch.Generator().manual_seed(0)) * size
    codes, scales = quantize_to(weights, dtype, groups)
    assert (codes.dtype, codes.shape, scales.dtype) == (torch.int8, (300, 32), dtype)
    assert scales.shape == (300, groups)
    assert codes.abs().max() >= 64
    steps = scales.double().repeat_interleave(32 // groups, dim=1)
    off = (weights.double() - codes.double() * steps).abs() / (steps / 2)
    assert off.max() <= 1 + 2**-15


def test_a_row_of_zeros_has_scale_1():
    codes, scales = quantize_to(torch.zeros(2, 8), torch.bfloat16)
    assert codes.count_nonzero() == 0
    assert scales.tolist() == [[1.0], [1.0]]


@pytest.fixture(params=["llama", "mixtral"])
def folders(request, tmp_path):
    torch.manual_seed(0)
    if request.param == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    else:
        config = transformers.MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2)
        model = transformers.MixtralForCausalLM(config)
    model.bfloat16().save_pretrained(tmp_path / "float")
    files = open_shards(tmp_path / "float")
    (tmp_path / "int8").mkdir()
    plan_checkpoint(files, streaming_skeleton(tmp_path / "float", files)).run(tmp_path / "int8")
    (tmp_path / "int8" / "config.json").write_text((tmp_path / "float" / "config.json").read_text())
    return tmp_path


def test_a_folder_with_such_scales_loses_less(folders):
    """Against the float weights, after the cast of scales that readers do."""
    export(folders / "int8", folders / "as_is")
    plan = export(folders / "int8", folders / "rounded", float_source=folders / "float")
    assert plan.has_rounded_scales
    floats = load_file(folders / "float" / "model.safetensors")
    noise = {}
    for name in ("as_is", "rounded"):
        state = load_file(folders / name / "model.safetensors")
        layers = [key.removesuffix("_packed") for key in state if key.endswith(".weight_packed")]
        assert len(layers) >= 7
        noise[name] = 0.0
        for key in layers:
            k = int(state[f"{key}_shape"][1])
            scales = state[f"{key}_scale"].bfloat16().double()
            off = floats[key].double() - unpack_rows(state[f"{key}_packed"], k).double() * scales
            noise[name] += off.square().sum().item()
            if name == "rounded":
                assert state[f"{key}_scale"].dtype == torch.bfloat16
                assert (off.abs() / (scales / 2)).max() <= 1 + 2**-15
    assert 0 < noise["rounded"] < 0.97 * noise["as_is"]


def test_weights_of_another_model_are_refused(folders):
    file = folders / "float" / "model.safetensors"
    state = load_file(file)
    key = next(key for key in state if "q_proj" in key)
    state[key] = state[key].flip(0)
    save_file(state, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="q_proj: the float weight is not the one"):
        export(folders / "int8", folders / "out", float_source=folders / "float")
    assert not (folders / "out").exists()
