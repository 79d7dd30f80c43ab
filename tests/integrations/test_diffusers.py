"""diffusers folders: the models of a pipeline, and skeletons of them."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import w8a16
from support.files import assert_same_model
from support.skeletons import assert_leads_to
from w8a16.checkpoint import open_shards
from w8a16.errors import CheckpointError, MissingExtraError, ResourceError, UnknownModelError
from w8a16.integrations import diffusers as folders
from w8a16.integrations import parts
from w8a16.integrations import transformers as transformers_folders
from w8a16.integrations.pipelines import components, open_component

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

WEIGHTS = "diffusion_pytorch_model.safetensors"


def unet():
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
    )


def vae():
    return diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8, latent_channels=4)


def text_encoder():
    config = transformers.CLIPTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    return transformers.CLIPTextModel(config)


@pytest.fixture
def pipeline(tmp_path):
    """A Stable Diffusion folder, saved part by part: its pipeline class would ask for a tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path / "pipeline"
    unet().save_pretrained(folder / "unet")
    vae().save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.36.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_index(folder, index)
    return folder


def write_index(folder, index):
    (folder / "model_index.json").write_text(json.dumps(index))


def change_index(folder, **changes):
    write_index(folder, {**json.loads((folder / "model_index.json").read_text()), **changes})


def test_the_models_of_a_pipeline(pipeline):
    found = components(pipeline)
    assert [(c.name, c.folder, c.library, c.class_name) for c in found] == [
        ("text_encoder", pipeline / "text_encoder", "transformers", "CLIPTextModel"),
        ("unet", pipeline / "unet", "diffusers", "UNet2DConditionModel"),
        ("vae", pipeline / "vae", "diffusers", "AutoencoderKL"),
    ]


def test_skeletons_of_all_models_of_a_pipeline(pipeline):
    loaded = {
        "text_encoder": transformers_folders.load_float(pipeline / "text_encoder"),
        "unet": diffusers.UNet2DConditionModel.from_pretrained(pipeline / "unet"),
        "vae": diffusers.AutoencoderKL.from_pretrained(pipeline / "vae"),
    }
    found = parts.find_parts(pipeline)
    assert {str(part.place) for part in found} == set(loaded)
    for part in found:
        skeleton, why_names = parts.skeleton_of(part)
        assert why_names is None
        assert_leads_to(skeleton, part.shards, loaded[str(part.place)])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"unet": ["diffusers"]}, r"unet: expected \[library, class\], found \['diffusers'\]"),
        ({"unet": ["diffusers", 3]}, r"unet: expected \[library, class\], found \['diffusers', 3\]"),
        ({"../unet": ["diffusers", "X"]}, r"unsafe component name: '../unet'"),
        ({"a/b": ["diffusers", "X"]}, r"unsafe component name: 'a/b'"),
        ({"more": ["diffusers", "X"], "most": ["a", "b"]}, r"names components without a folder: more, most"),
    ],
)
def test_an_index_that_cannot_be_followed(pipeline, changes, message):
    change_index(pipeline, **changes)
    with pytest.raises(CheckpointError, match=message):
        components(pipeline)


def test_not_a_pipeline(pipeline, tmp_path):
    with pytest.raises(ResourceError, match="no such folder"):
        components(tmp_path / "none")
    (pipeline / "model_index.json").unlink()
    with pytest.raises(CheckpointError, match=r"no model_index\.json"):
        components(pipeline)


@pytest.mark.parametrize(
    "variant", ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"]
)
def test_a_variant_is_used_only_where_it_is_named(pipeline, variant):
    (component,) = [c for c in components(pipeline) if c.name == "vae"]
    usual = component.folder / WEIGHTS
    (component.folder / variant).write_bytes(usual.read_bytes())
    assert open_component(component).headers[0].path == usual
    usual.unlink()
    with pytest.raises(CheckpointError) as caught:
        open_component(component)
    assert str(caught.value) == (
        f"{component.folder}: holds variants only ({variant}): choose one with weights=NAME (--weights NAME)"
    )
    assert open_component(component, weights=variant).headers[0].path.name == variant


def test_a_model_by_itself_in_its_own_dtypes(tmp_path):
    model = vae().to(torch.bfloat16)
    model.decoder.conv_norm_out.float()
    model.save_pretrained(tmp_path)
    shards = open_shards(tmp_path)
    skeleton = folders.streaming_skeleton(tmp_path, shards)
    assert_leads_to(skeleton, shards, model.eval())


def test_several_files(tmp_path):
    model = unet().eval()
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    shards = open_shards(tmp_path)
    assert len(shards.headers) > 2
    assert_leads_to(folders.streaming_skeleton(tmp_path, shards), shards, model)


def test_names_of_attention_blocks_from_before_2023(tmp_path):
    model = vae().eval()
    model.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(tmp_path / WEIGHTS)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in tensors.items()}
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    shards = open_shards(tmp_path)
    assert any(".query." in name for name in shards.tensors)
    skeleton = folders.streaming_skeleton(tmp_path, shards)
    assert_leads_to(skeleton, shards, diffusers.AutoencoderKL.from_pretrained(tmp_path).eval())


def test_an_int8_file_becomes_the_quantized_model(tmp_path):
    model = vae().eval()
    model.save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    w8a16.save(w8a16.quantize(model), tmp_path)
    assert_same_model(w8a16.load(folders.skeleton(tmp_path), tmp_path), model)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: {k: v for k, v in t.items() if "quant_conv.bias" not in k},
            "needs 2 tensors that the folder",
        ),
        (lambda t: {**t, "more": torch.ones(2)}, "has no place for 1 tensors of the folder: more"),
        (
            lambda t: {**t, "quant_conv.bias": torch.ones(2)},
            r"needs other shapes: quant_conv\.bias is \[2\], expected \[8\]",
        ),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    vae().save_pretrained(tmp_path)
    save_file(change(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        folders.streaming_skeleton(tmp_path, open_shards(tmp_path))


def test_classes_that_are_not_known(pipeline, monkeypatch):
    config = pipeline / "vae" / "config.json"
    changed = {**json.loads(config.read_text()), "_class_name": "ZebraModel"}
    config.write_text(json.dumps(changed))
    with pytest.raises(UnknownModelError, match="_class_name ZebraModel: not a model class of diffusers"):
        folders.streaming_skeleton(pipeline / "vae", open_shards(pipeline / "vae"))
    with pytest.raises(UnknownModelError, match="_class_name ZebraModel: not a model class of diffusers"):
        folders.skeleton(pipeline / "vae")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"needs diffusers, which is not installed: pip install"):
        folders.skeleton(pipeline / "unet")


def test_a_config_of_wrong_types(tmp_path):
    vae().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "block_out_channels": "many"}))
    with pytest.raises(CheckpointError, match="diffusers cannot build it: "):
        folders.skeleton(tmp_path)
