"""Flows of transformers that could be silently wrong: each is right, or refused."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import w8a16
from support.hub_models import IDS, make, outputs
from w8a16.errors import CheckpointError, UsageError, WeightValueError
from w8a16.integrations import transformers_quantizer
from w8a16.integrations.transformers import W8A16Config, from_pretrained
from w8a16.layers import QuantizedModule
from w8a16.layers.frozen import hold_as_parameters

transformers = pytest.importorskip("transformers")
from transformers.core_model_loading import set_param_for_module  # noqa: E402
from transformers.integrations.accelerate import accelerate_disk_offload  # noqa: E402

pytestmark = pytest.mark.transformers
OFFLOADS_TIED = "all_tied_weights_keys" in inspect.getsource(accelerate_disk_offload)
REPORTS_MISFITS = "param_needs_quantization" in inspect.getsource(set_param_for_module)
PARTS = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}


@pytest.fixture
def floats(tmp_path):
    make("llama").save_pretrained(tmp_path / "float")
    return tmp_path / "float"


@pytest.fixture
def int8(floats, tmp_path):
    from_pretrained(floats).save_pretrained(tmp_path / "int8")
    return tmp_path / "int8"


def change(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def replace_tensors(folder, changed):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    state = {**load_file(file), **changed}
    save_file({key: value for key, value in state.items() if value is not None}, file, metadata)


# --- registration and conflicts -----------------------------------------------------------------


def test_registering_twice_changes_nothing():
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    transformers_quantizer.register()
    transformers_quantizer.register()
    assert AUTO_QUANTIZER_MAPPING["w8a16"] is transformers_quantizer.W8A16Quantizer


def test_another_quantizer_of_that_name_is_not_displaced(monkeypatch):
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    monkeypatch.setitem(AUTO_QUANTIZER_MAPPING, "w8a16", object)
    with pytest.raises(UsageError, match=r"knows another 'w8a16' already: builtins\.object"):
        transformers_quantizer.register()


@pytest.mark.slow  # imports transformers anew
def test_the_import_registers_in_a_fresh_process(int8):
    code = (
        "import sys, transformers, w8a16.integrations.transformers;"
        "m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]);"
        "print(type(m.lm_head).__name__)"
    )
    command = [sys.executable, "-c", code, str(int8)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "W8A16LinearLayer\n", done.stderr


def test_a_folder_without_the_import_is_noticed(int8, monkeypatch):
    """transformers only warns, and makes random numbers: the note in the config says what to import."""
    from transformers.quantizers import auto

    monkeypatch.delitem(auto.AUTO_QUANTIZER_MAPPING, "w8a16")
    monkeypatch.delitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, "w8a16")
    warnings = []
    monkeypatch.setattr(auto.logger, "warning", warnings.append)
    model = transformers.AutoModelForCausalLM.from_pretrained(int8)
    assert type(model.lm_head) is nn.Linear
    assert warnings[0].startswith("Unknown quantization type, got w8a16")
    note = json.loads((int8 / "config.json").read_text())["quantization_config"]["note"]
    assert "import w8a16.integrations.transformers" in note


@pytest.mark.parametrize("other", ["load_in_8bit", "load_in_4bit"])
def test_other_methods_are_refused(floats, other):
    with pytest.raises(UsageError, match=other):
        W8A16Config(**{other: True})
    with pytest.raises(UsageError, match=other):
        from_pretrained(floats, **{other: True})


def test_rules_for_int8_weights_are_refused(int8):
    with pytest.raises(UsageError, match="quantized already"):
        from_pretrained(int8, exclude="lm_head")


@pytest.mark.parametrize(
    "arguments",
    [{"on_nonfinite": "zero"}, {"include": nn.Linear}, {"quant_method": "fp8"}, {"kind": "linear"}],
    ids=str,
)
def test_arguments_that_mean_nothing(arguments):
    with pytest.raises(UsageError):
        W8A16Config(**arguments)


def test_a_broken_manifest_is_refused():
    with pytest.raises(CheckpointError, match=r"quantization_config\.manifest: the manifest cannot"):
        W8A16Config(manifest={"format_version": 2})


# --- values ----------------------------------------------------------------------------------------


def test_nan_is_refused_by_name_or_kept(floats):
    weight = torch.full((64, 32), 0.5)
    weight[3, 4] = torch.nan
    replace_tensors(floats, {"model.layers.0.mlp.up_proj.weight": weight})
    with pytest.raises(WeightValueError, match=r"model\.layers\.0\.mlp\.up_proj\.weight: .*NaN"):
        from_pretrained(floats)
    model = from_pretrained(floats, on_nonfinite="keep-float")
    assert type(model.model.layers[0].mlp.up_proj) is nn.Linear
    assert isinstance(model.model.layers[1].mlp.up_proj, QuantizedModule)


def test_missing_int8_tensors_are_refused(int8):
    replace_tensors(int8, {"model.layers.1.mlp.up_proj.scales": None})
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.scales"):
        from_pretrained(int8)


def test_scales_that_are_no_scales_are_refused(int8):
    replace_tensors(int8, {"model.layers.1.mlp.up_proj.scales": torch.zeros(64)})
    with pytest.raises(CheckpointError, match=r"up_proj\.scales: expected finite positive scales"):
        from_pretrained(int8)


def test_weights_of_another_model_are_refused(int8):
    change(int8, intermediate_size=48)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.mlp\.up_proj: expected a weight"):
        from_pretrained(int8)


def test_a_config_without_what_was_done(int8, floats):
    """The headers of the files tell it; a float folder that claims to be int8 has nobody to ask."""
    expected = outputs(from_pretrained(int8), "llama")[0]
    change(int8, quantization_config={"quant_method": "w8a16"})
    assert torch.equal(outputs(from_pretrained(int8), "llama")[0], expected)
    change(floats, quantization_config={"quant_method": "w8a16"})
    with pytest.raises(CheckpointError, match="quantize the model anew"):
        from_pretrained(floats)


def test_a_misfit_is_reported_as_for_float_weights(floats):
    replace_tensors(floats, {"model.layers.0.mlp.up_proj.weight": torch.ones(48, 32)})
    with pytest.raises((RuntimeError, CheckpointError), match=r"ignore_mismatched_sizes|do not fit"):
        from_pretrained(floats)
    if not REPORTS_MISFITS:
        pytest.skip("this transformers checks no shapes where there is a quantizer, so all are refused")
    model = from_pretrained(floats, ignore_mismatched_sizes=True)
    assert type(model.model.layers[0].mlp.up_proj) is nn.Linear  # new numbers, to be trained


# --- dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_dtype_casts_no_scales_and_no_codes(name, dtype, tmp_path):
    make(name).save_pretrained(tmp_path / "float")
    from_pretrained(tmp_path / "float").save_pretrained(tmp_path / "int8")
    stored, model = from_pretrained(tmp_path / "int8"), from_pretrained(tmp_path / "int8", dtype=dtype)
    state = stored.state_dict()
    for key, value in model.state_dict().items():
        if key.endswith(("int8_weights", "scales")):
            assert torch.equal(value, state[key]), key
            assert value.dtype == state[key].dtype, key
    assert model.dtype == dtype
    model_class = type(stored)
    wanted = model_class.from_pretrained(tmp_path / "float", dtype=dtype)
    for path, module in model.named_modules():
        if isinstance(module, QuantizedModule) and "weight" in module.layouts:
            assert module.weight_dtype == wanted.get_submodule(path).weight.dtype, path
    assert outputs(model, name)[0].dtype == outputs(wanted, name)[0].dtype


def test_torch_dtype_means_what_it_meant(floats, int8):
    for folder in (floats, int8):
        assert from_pretrained(folder, torch_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_to_keeps_scales_and_half_is_refused_by_transformers(int8):
    model = from_pretrained(int8).to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.lm_head.scales.dtype == torch.float32
    assert outputs(model, "llama")[0].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="is not supported for quantized model"):
        model.half()


# --- devices ---------------------------------------------------------------------------------------


def test_disk_offload_of_float_weights_is_refused(floats, tmp_path):
    device_map = {**PARTS, "model.layers.0": "cpu", "model.layers.1": "disk"}
    with pytest.raises(UsageError, match="quantize the folder first"):
        from_pretrained(floats, device_map=device_map, offload_folder=tmp_path / "disk")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("which", ["some", "tied"])
def test_disk_offload_of_int8_weights_is_right(floats, tmp_path, which, dtype):
    pytest.importorskip("accelerate")
    if which == "tied" and not OFFLOADS_TIED:
        pytest.skip("this transformers cannot offload tied weights to disk, of float models either")
    from_pretrained(floats, dtype=dtype).save_pretrained(tmp_path / "int8")
    layers = {"model.layers.0": "cpu", "model.layers.1": "disk"}
    tied = {"model.embed_tokens": "disk", "lm_head": "disk"} if which == "tied" else {}
    places = {**PARTS, **layers, **tied}
    model = from_pretrained(tmp_path / "int8", device_map=places, offload_folder=tmp_path / "disk")
    away = model.model.embed_tokens if tied else model.model.layers[1].mlp.up_proj
    assert away.int8_weights.is_meta
    expected = outputs(from_pretrained(tmp_path / "int8"), "llama")
    for _ in range(2):
        for one, two in zip(outputs(model, "llama"), expected, strict=True):
            assert torch.equal(one, two)
    assert away.int8_weights.is_meta
    assert model.dtype == dtype
    with pytest.raises(UsageError, match="offloaded"):
        model.save_pretrained(tmp_path / "again")


def test_cpu_offload_is_right(int8):
    """As a device map with a GPU and "cpu" has it; here the CPU stands for the GPU."""
    accelerate = pytest.importorskip("accelerate")
    model = hold_as_parameters(from_pretrained(int8), floats=False)
    expected = outputs(model, "llama")
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.model.layers[0].mlp.up_proj.int8_weights.is_meta
    for _ in range(2):
        for one, two in zip(outputs(model, "llama"), expected, strict=True):
            assert torch.equal(one, two)
    assert model.lm_head.int8_weights.is_meta


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
@pytest.mark.parametrize("stored", ["float", "int8"])
def test_one_device_needs_no_parameters(floats, int8, stored, device_map):
    model = from_pretrained({"float": floats, "int8": int8}[stored], device_map=device_map)
    assert not any(parameter.dtype == torch.int8 for parameter in model.parameters())
    wanted = w8a16.quantize(make("llama"))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in wanted.named_parameters()}
    assert torch.equal(outputs(model, "llama")[0], outputs(wanted, "llama")[0])


def test_device_maps_count_a_byte_for_a_weight(floats):
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(W8A16Config(), pre_quantized=False)
    with torch.device("meta"):
        model = make("llama")
    quantizer.preprocess_model(model, dtype=torch.float32)
    norm = "model.norm.weight"
    assert quantizer.param_element_size(model, norm, model.get_parameter(norm)) == 4
    up = "model.layers.0.mlp.up_proj.weight"
    assert quantizer.param_element_size(model, up, model.get_parameter(up)) == 1


# --- training --------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """A low-rank addition to a frozen layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def test_adapters_are_trained_on_the_frozen_model(int8):
    model = from_pretrained(int8).train()
    assert model.hf_quantizer.is_trainable
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in model.model.layers:
        layer.self_attn.q_proj = Adapter(layer.self_attn.q_proj)
        layer.mlp.up_proj = Adapter(layer.mlp.up_proj)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held = ("int8_weights", "scales")
    before = {key: value.clone() for key, value in model.state_dict().items() if key.endswith(held)}
    optimizer = torch.optim.Adam(trained, lr=0.05)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    first = model.model.layers[0].self_attn.q_proj  # below everything: its gradient passed all int8 layers
    assert first.down.weight.grad.abs().sum() > 0
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
