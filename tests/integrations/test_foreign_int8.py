"""int8 weights of other libraries: the same codes here, or a reason why not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import w8a16
from support import foreign_int8 as foreign
from w8a16.checkpoint import open_checkpoint
from w8a16.errors import CheckpointError
from w8a16.integrations.foreign_int8 import import_int8, plan_import
from w8a16.integrations.transformers import skeleton

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "intermediate_size": 72,
}


@pytest.fixture
def llama():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(12).view(2, 6)).logits


def written(folder):
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


@pytest.mark.parametrize("name", foreign.FORMATS)
def test_the_codes_are_the_same_and_the_model_computes_with_them(name, llama, tmp_path):
    held = foreign.write(llama, tmp_path / "theirs", name)
    plan = import_int8(tmp_path / "theirs", tmp_path / "ours")
    assert len(held) == len(plan.found.weights) == 7
    tensors = written(tmp_path / "ours")
    for key, (codes, scales) in held.items():
        layer = key.removesuffix(".weight")
        assert torch.equal(tensors[f"{layer}.int8_weights"].view(codes.shape), codes)
        ours = tensors[f"{layer}.scales"].view(scales.shape)
        assert torch.equal(ours, scales * 127 / 127 if name == "bitsandbytes" else scales)
    model = w8a16.load(skeleton(tmp_path / "ours"), tmp_path / "ours")
    expected = logits(llama)
    assert expected.abs().max() > 0.1
    assert (logits(model) - expected).abs().max() < 1e-5


def test_what_is_float_stays_float_and_the_manifest_says_so(llama, tmp_path):
    foreign.write(llama, tmp_path / "theirs", "packed")
    import_int8(tmp_path / "theirs", tmp_path / "ours")
    manifest = open_checkpoint(tmp_path / "ours").manifest
    assert manifest.kept_float == {
        "model.embed_tokens.weight": "not_converted",
        "lm_head.weight": "not_converted",
    }
    assert manifest.origin == "classes"
    assert {record.kind for record in manifest.modules.values()} == {"linear"}
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "w8a16"


def test_one_scale_for_a_whole_weight_is_one_for_each_row(llama, tmp_path):
    key = "model.layers.0.mlp.up_proj.weight_scale"

    def change(state):
        state[key] = torch.tensor([0.25])

    foreign.write(llama, tmp_path / "theirs", "int-quantized", change)
    import_int8(tmp_path / "theirs", tmp_path / "ours")
    assert written(tmp_path / "ours")["model.layers.0.mlp.up_proj.scales"].tolist() == [0.25] * 72


def test_a_row_without_a_scale_is_zero_whatever_its_codes(llama, tmp_path):
    layer = "model.layers.0.mlp.up_proj"

    def change(state):
        state[f"{layer}.SCB"][3] = 0

    foreign.write(llama, tmp_path / "theirs", "bitsandbytes", change)
    assert written(tmp_path / "theirs")[f"{layer}.weight"][3].count_nonzero() > 0
    import_int8(tmp_path / "theirs", tmp_path / "ours")
    tensors = written(tmp_path / "ours")
    assert tensors[f"{layer}.int8_weights"][3].count_nonzero() == 0
    assert tensors[f"{layer}.scales"][3] == 1


def test_activations_that_are_quantized_there_are_told_of(llama, tmp_path):
    foreign.write(llama, tmp_path / "theirs", "int-quantized")
    edit_config(
        tmp_path, lambda said: said["config_groups"]["group_0"].update(input_activations={"num_bits": 8})
    )
    assert plan_import(tmp_path / "theirs").found.notes == (
        "activations are quantized in the source; here they stay float",
    )


def test_without_a_config_names_tell_what_the_tensors_are(llama, tmp_path):
    foreign.write(llama, tmp_path / "theirs", "quanto")
    (tmp_path / "theirs" / "config.json").unlink()
    plan = import_int8(tmp_path / "theirs", tmp_path / "ours")
    assert plan.why_names == "there is no config.json"
    assert open_checkpoint(tmp_path / "ours").manifest.origin == "names"
    model = w8a16.load(llama, tmp_path / "ours")
    assert isinstance(model.model.layers[0].mlp.up_proj, w8a16.W8A16LinearLayer)


def edit_config(tmp_path, change):
    file = tmp_path / "theirs" / "config.json"
    config = json.loads(file.read_text())
    change(config["quantization_config"])
    file.write_text(json.dumps(config))


GROUP = "group_0"
LAYER = "model.layers.0.mlp.up_proj"
BAD_CONFIGS = {
    "4 bits": ({"num_bits": 4}, "weights of type int with 4 bits; expected int with 8"),
    "float": ({"type": "float"}, "weights of type float with 8 bits"),
    "asymmetric": ({"symmetric": False}, "asymmetric, it has zero points"),
    "order": ({"actorder": "group"}, "in an order of their own"),
}
BAD_TENSORS = {
    "zero points": (
        "torchao",
        {f"{LAYER}._weight_zero_point": torch.ones(72, 1, dtype=torch.int8)},
        "asymmetric, its zero points are not zero",
    ),
    "packed zero points": (
        "packed",
        {f"{LAYER}.weight_zero_point": torch.zeros(18, 1, dtype=torch.int32)},
        "asymmetric, it has zero points",
    ),
    "order": ("packed", {f"{LAYER}.weight_g_idx": torch.zeros(32, dtype=torch.int32)}, "order of their own"),
    "no shape": ("packed", {f"{LAYER}.weight_shape": None}, "how long are its rows"),
    "another width": (
        "packed",
        {f"{LAYER}.weight_packed": torch.zeros(72, 4, dtype=torch.int32)},
        r"expected int32 \[72, 8\] for 8-bit codes",
    ),
    "no scales": ("packed", {f"{LAYER}.weight_scale": None}, "has codes, but no weight_scale"),
    "scales of blocks": (
        "int-quantized",
        {f"{LAYER}.weight_scale": torch.ones(9, 4)},
        r"scales \[9, 4\] for a weight \[72, 32\]",
    ),
    "integer scales": (
        "int-quantized",
        {f"{LAYER}.weight_scale": torch.ones(72, 1, dtype=torch.int32)},
        "scales in torch.int32",
    ),
    "negative scales": ("quanto", {f"{LAYER}.weight._scale": -torch.ones(72, 1)}, "negative or not finite"),
    "infinite scales": ("bitsandbytes", {f"{LAYER}.SCB": torch.full((72,), torch.inf)}, "or not finite"),
    "kernel order": (
        "bitsandbytes",
        {f"{LAYER}.weight_format": torch.tensor(2, dtype=torch.uint8)},
        "order of a kernel",
    ),
    "other codes": (
        "bitsandbytes",
        {"lm_head.weight": torch.zeros(61, 16, dtype=torch.uint8)},
        "codes that are not understood: lm_head.weight",
    ),
    "both": ("torchao", {f"{LAYER}.weight": torch.zeros(72, 32)}, "stored as float and as codes"),
    "nowhere": ("torchao", {"other.weight": torch.zeros(4, 4)}, "no place for .*other.weight"),
}


@pytest.mark.parametrize("bad", BAD_CONFIGS)
def test_a_config_of_other_weights_is_refused(bad, llama, tmp_path):
    change, text = BAD_CONFIGS[bad]
    foreign.write(llama, tmp_path / "theirs", "packed")
    edit_config(tmp_path, lambda said: said["config_groups"][GROUP]["weights"].update(change))
    with pytest.raises(CheckpointError, match=f"theirs: {GROUP}: .*{text}"):
        plan_import(tmp_path / "theirs")


def test_a_rotated_model_is_refused(llama, tmp_path):
    foreign.write(llama, tmp_path / "theirs", "packed")
    edit_config(tmp_path, lambda said: said.update(transform_config={"config_groups": {"R1": {}}}))
    with pytest.raises(CheckpointError, match="the model is rotated"):
        plan_import(tmp_path / "theirs")


@pytest.mark.parametrize("bad", BAD_TENSORS)
def test_tensors_that_mean_something_else_are_refused(bad, llama, tmp_path):
    name, tensors, text = BAD_TENSORS[bad]

    def change(state):
        for key, value in tensors.items():
            if value is None:
                del state[key]
            else:
                state[key] = value

    foreign.write(llama, tmp_path / "theirs", name, change)
    with pytest.raises(CheckpointError, match=text):
        import_int8(tmp_path / "theirs", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_other_kinds_of_checkpoints_are_refused(llama, tmp_path):
    llama.save_pretrained(tmp_path / "float")
    with pytest.raises(CheckpointError, match=r"float weights; .*use w8a16 quantize"):
        plan_import(tmp_path / "float")
    w8a16.save(w8a16.quantize(llama), tmp_path / "ours")
    with pytest.raises(CheckpointError, match="int8 of w8a16 already"):
        plan_import(tmp_path / "ours")
    (tmp_path / "gptq").mkdir()
    state = {f"q.{name}": torch.zeros(4, 4, dtype=torch.int32) for name in ("qweight", "qzeros", "g_idx")}
    save_file(state, tmp_path / "gptq" / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"already quantized \(GPTQ: .* expected int8 weights of compressed"
    ):
        plan_import(tmp_path / "gptq")


def test_layers_with_input_and_output_exchanged_are_refused(tmp_path):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 61, "n_positions": 16}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))

    foreign.write(model, tmp_path / "theirs", "quanto", lambda state: state.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match="input and output of 2 weights exchanged"):
        plan_import(tmp_path / "theirs")
