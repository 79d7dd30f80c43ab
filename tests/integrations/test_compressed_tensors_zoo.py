"""Every transformers class of the zoo: exported, loaded by stock transformers, imported again; or refused."""

import shutil

import pytest
import torch
from torch.utils._pytree import tree_leaves
from zoo.catalogue import catalogue
from zoo.entry import SEED, make_inputs, make_model

import w8a16
from w8a16.checkpoint import open_shards
from w8a16.checkpoint.streaming import plan_checkpoint
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors import export
from w8a16.integrations.foreign_int8 import import_int8
from w8a16.integrations.transformers import skeleton
from w8a16.integrations.transformers_folders import streaming_skeleton

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

ENTRIES = {entry.name: entry for entry in catalogue().entries if entry.family != "plain"}
NOTHING = "no weight could stay int8"
COMPUTED = "has replaced (weight normalization)"
FAILS = "cannot load"
REFUSED = {
    # Convolutions and transposed linear layers only.
    **dict.fromkeys(("gpt2", "openai_gpt", "superpoint"), NOTHING),
    **dict.fromkeys(("dac", "speecht5_hifigan", "univnet"), NOTHING),
    **dict.fromkeys(("wav2vec2", "wav2vec2_stable", "wav2vec2_conformer", "hubert", "wavlm"), COMPUTED),
    **dict.fromkeys(("unispeech", "unispeech_sat", "sew", "encodec", "vits"), COMPUTED),
    # transformers 5.23 converts their float weights by rules that it cannot apply to packed ones.
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "depth_anything"), FAILS),
    **dict.fromkeys(("deformable_detr", "rt_detr", "phimoe", "llama4_text"), FAILS),
}


def outputs(model, entry):
    made = make_inputs(entry)
    torch.manual_seed(SEED)
    with torch.no_grad():
        result = model.eval()(**made) if isinstance(made, dict) else model.eval()(*made)
    result = result.to_tuple() if hasattr(result, "to_tuple") else result
    return [
        leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]


def difference(first, second):
    assert len(first) == len(second) > 0
    worst = 0.0
    for one, other in zip(first, second, strict=True):
        assert one.shape == other.shape
        if one.numel():
            worst = max(worst, ((one - other).abs().max() / one.abs().max().clamp(min=1e-6)).item())
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_stock_transformers_computes_the_same(name, tmp_path):
    entry = ENTRIES[name]
    model = make_model(entry)
    if not isinstance(model, transformers.PreTrainedModel):
        pytest.skip("not of transformers")
    model.eval().save_pretrained(tmp_path / "float")
    files = open_shards(tmp_path / "float")
    (tmp_path / "int8").mkdir()
    plan_checkpoint(files, streaming_skeleton(tmp_path / "float", files)).run(tmp_path / "int8")
    shutil.copy(tmp_path / "float" / "config.json", tmp_path / "int8" / "config.json")
    if name in REFUSED:
        with pytest.raises(CheckpointError) as refusal:
            export(tmp_path / "int8", tmp_path / "out")
        assert REFUSED[name] in str(refusal.value)
        return
    plan = export(tmp_path / "int8", tmp_path / "out")
    assert plan.checked
    ours = outputs(w8a16.load(skeleton(tmp_path / "int8"), tmp_path / "int8"), entry)
    stock, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert difference(ours, outputs(stock, entry)) < 1e-5
    import_int8(tmp_path / "out", tmp_path / "back")
    back = outputs(w8a16.load(skeleton(tmp_path / "back"), tmp_path / "back"), entry)
    assert difference(ours, back) < 1e-5
