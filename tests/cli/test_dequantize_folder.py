"""`w8a16 dequantize`: the original keys and dtypes, and the values of the int8 checkpoint."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import w8a16
from support.files import bits, checksums, edit_header
from support.golden import golden_float_model, golden_model
from w8a16.checkpoint import restoring

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 2}
BUILD = {
    "bert": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(**SIZES, intermediate_size=48, num_hidden_layers=2)
    ),
    "llama, tied": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **SIZES,
            intermediate_size=48,
            num_hidden_layers=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    ),
    "gpt2, sharded": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=64, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1
        )
    ).bfloat16(),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            **SIZES, intermediate_size=48, num_hidden_layers=1, num_key_value_heads=2, num_local_experts=3
        )
    ),
}


@pytest.fixture(params=BUILD)
def trio(request, run, tmp_path):
    """The float model, its folder, the quantized folder, and the float folder made from that."""
    torch.manual_seed(0)
    model = BUILD[request.param]().eval()
    limit = {"max_shard_size": "60KB"} if "sharded" in request.param else {}
    model.save_pretrained(tmp_path / "float", **limit)
    for command, names in (("quantize", ("float", "int8")), ("dequantize", ("int8", "back"))):
        result = run(command, *(tmp_path / name for name in names))
        assert result.code == 0, result.err
    return model, tmp_path


def stored(folder):
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def test_plain_transformers_loads_it_with_the_values_of_the_model_in_memory(trio):
    model, folder = trio
    loaded, info = type(model).from_pretrained(folder / "back", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = w8a16.dequantize(w8a16.load(type(model)(model.config), folder / "int8"))
    state, wanted = loaded.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    for name, tensor in wanted.items():
        assert state[name].dtype == tensor.dtype
        assert bits(state[name]) == bits(tensor), name


def test_it_is_laid_out_as_the_original(trio):
    model, folder = trio
    names = {file.name for file in (folder / "float").glob("*safetensors*")}
    assert {file.name for file in (folder / "back").glob("*safetensors*")} == names
    assert (folder / "back" / "config.json").read_bytes() == (folder / "float" / "config.json").read_bytes()
    before, after = stored(folder / "float"), stored(folder / "back")
    if not isinstance(model, transformers.MixtralForCausalLM):  # there the experts are one stack now
        assert {n: (t.dtype, t.shape) for n, t in after.items()} == {
            n: (t.dtype, t.shape) for n, t in before.items()
        }
    if (index := folder / "back" / "model.safetensors.index.json").exists():
        for name, file in json.loads(index.read_text())["weight_map"].items():
            assert name in load_file(folder / "back" / file)


def test_by_name_every_key_comes_back(run, tmp_path):
    """Turned weights were quantized along the other direction, but are where they were."""
    torch.manual_seed(0)
    BUILD["gpt2, sharded"]().save_pretrained(tmp_path / "float", max_shard_size="60KB")
    assert run("quantize", tmp_path / "float", tmp_path / "int8", "--by-name").code == 0
    assert run("dequantize", tmp_path / "int8", tmp_path / "back").code == 0
    before, after = stored(tmp_path / "float"), stored(tmp_path / "back")
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        step = tensor.abs().float().amax() / 127
        assert (after[name].float() - tensor.float()).abs().max() <= step, name


@pytest.mark.parametrize("elements", [1, 3, 7, 1 << 20])
def test_every_layout_in_blocks_of_any_size(run, tmp_path, monkeypatch, elements):
    """Experts, transposed convolutions in groups, stacks: as the model in memory, however it is cut."""
    monkeypatch.setattr(restoring, "_ELEMENTS", elements)
    monkeypatch.setattr(restoring, "_COLUMN_ELEMENTS", elements)
    monkeypatch.setattr(restoring, "_BYTES", elements)
    file = w8a16.save(golden_model(), tmp_path)
    assert run("dequantize", file, tmp_path / "back").code == 0
    found = load_file(tmp_path / "back" / "model.safetensors")
    expected = w8a16.dequantize(golden_model()).state_dict()
    assert found.keys() == expected.keys() == golden_float_model().state_dict().keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(found[name]) == bits(tensor), name


@pytest.mark.parametrize("elements", [1, 7, 100, 1 << 20])
def test_turned_weights_in_blocks_of_any_size(run, tmp_path, monkeypatch, elements):
    """Their rows are columns of the file: some of them, all of a group, or all."""
    monkeypatch.setattr(restoring, "_COLUMN_ELEMENTS", elements)
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(6, 8, 3, groups=2)
    model = w8a16.quantize(nn.Sequential(up, transformers.pytorch_utils.Conv1D(24, 16)))
    file = w8a16.save(model, tmp_path)
    assert run("dequantize", file, tmp_path / "back").code == 0
    found = load_file(tmp_path / "back" / "model.safetensors")
    for name, tensor in w8a16.dequantize(model).state_dict().items():
        assert bits(found[name]) == bits(tensor), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(run, tmp_path, dtype):
    torch.manual_seed(0)
    model = w8a16.quantize(nn.Sequential(nn.Linear(48, 32), nn.Conv2d(4, 8, 3), nn.LSTM(16, 16)).to(dtype))
    file = w8a16.save(model, tmp_path)
    assert run("dequantize", file, tmp_path / "back").code == 0
    found = load_file(tmp_path / "back" / "model.safetensors")
    expected = w8a16.dequantize(model).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == dtype
        assert bits(found[name]) == bits(tensor), name


def test_a_pipeline_of_several_models(run, bert, tmp_path):
    assert run("quantize", bert, tmp_path / "int8").code == 0
    for name in ("encoder", "decoder"):
        shutil.copytree(tmp_path / "int8", tmp_path / "tree" / name)
    assert run("dequantize", tmp_path / "tree", tmp_path / "back").code == 0
    for name in ("encoder", "decoder"):
        assert stored(tmp_path / "back" / name).keys() == stored(bert).keys()
        assert (tmp_path / "back" / name / "config.json").exists()


def test_what_is_said(run, bert, tmp_path):
    assert run("quantize", bert, tmp_path / "int8").code == 0
    before = checksums(tmp_path / "int8")
    result = run("dequantize", tmp_path / "int8", tmp_path / "back", "--json")
    document = result.json
    assert document["files"] == ["model.safetensors"]
    assert document["copied"] == ["config.json"]
    assert document["bytes_written"] == (tmp_path / "back" / "model.safetensors").stat().st_size
    assert checksums(tmp_path / "int8") == before


def test_a_taken_output_is_refused(run, bert, dst):
    assert run("quantize", bert, dst).code == 0
    before = checksums(dst.parent)
    result = run("dequantize", dst, dst)
    assert result.code == 4
    assert "is the input itself" in result.err
    assert checksums(dst.parent) == before


def test_a_float_checkpoint_is_refused(run, bert, dst, nothing_written):
    result = run("dequantize", bert, dst)
    assert result.code == 3
    assert "not written by w8a16" in result.err
    nothing_written()


def test_nothing_is_left_after_a_failure(run, bert, tmp_path, monkeypatch):
    assert run("quantize", bert, tmp_path / "int8").code == 0
    monkeypatch.setattr(restoring, "dequantize", lambda *arguments: 1 / 0)
    (tmp_path / "work").mkdir()
    assert run("dequantize", tmp_path / "int8", tmp_path / "work" / "back").code == 1
    assert list((tmp_path / "work").iterdir()) == []


def test_a_float_weight_beside_its_codes_is_refused(run, tmp_path):
    file = w8a16.save(w8a16.quantize(nn.Sequential(nn.Linear(16, 16))), tmp_path)

    def rename(header):
        header["0.weight"] = header.pop("0.bias")
        manifest = json.loads(header["__metadata__"]["w8a16"])
        manifest["checksums"]["0.weight"] = manifest["checksums"].pop("0.bias")
        header["__metadata__"]["w8a16"] = json.dumps(manifest)

    edit_header(file, rename)
    result = run("dequantize", file, tmp_path / "back")
    assert result.code == 3
    assert "holds 0.weight beside its int8 codes" in result.err
    assert not (tmp_path / "back").exists()
