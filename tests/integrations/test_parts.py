"""What a source is: a file, a model folder, a pipeline; and where the class of a model is known."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import w8a16
from support.files import change_config
from w8a16.errors import CheckpointError, ResourceError, W8A16Error
from w8a16.integrations.parts import find_parts, skeleton_of

WEIGHTS = {"layer.weight": torch.randn(32, 40), "layer.bias": torch.randn(32)}


def write(path, config=None, **others):
    """Weights at `path`, with a config beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(WEIGHTS, path)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def bert(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def only_part(source, **how):
    (part,) = find_parts(source, **how)
    assert part.place == Path()
    return part


def test_a_file_by_itself(tmp_path):
    """Also beside a config: which of the files of a folder it is about, nobody says."""
    file = write(tmp_path / "some.safetensors", {"architectures": ["BertModel"]})
    part = only_part(file)
    skeleton, why = skeleton_of(part)
    assert (part.library, why) == (None, "a file by itself has no config")
    assert (skeleton.origin, skeleton.name) == ("names", "tensor names")


def test_a_folder_without_a_config(tmp_path):
    write(tmp_path / "model.safetensors")
    skeleton, why = skeleton_of(only_part(tmp_path))
    assert (skeleton.origin, why) == ("names", "there is no config.json")
    assert type(skeleton.model.layer) is nn.Linear


@pytest.mark.transformers
def test_a_transformers_folder(bert):
    part = only_part(bert)
    skeleton, why = skeleton_of(part)
    assert (part.library, skeleton.origin, skeleton.name, why) == (
        "transformers",
        "classes",
        "BertModel",
        None,
    )


@pytest.mark.transformers
def test_names_where_they_are_asked_for(bert):
    skeleton, why = skeleton_of(only_part(bert), by_name=True)
    assert (skeleton.origin, why) == ("names", "asked for")


@pytest.mark.transformers
@pytest.mark.parametrize(
    "architectures, text",
    [
        (["ZebraModel"], "architectures ZebraModel: not a model class of transformers"),
        (None, "no architectures: which model class is it?"),
        (["os.system"], "not a model class of transformers"),
    ],
)
def test_names_where_the_class_is_not_known(bert, architectures, text):
    change_config(bert, architectures=architectures)
    skeleton, why = skeleton_of(only_part(bert))
    assert skeleton.origin == "names"
    assert text in why


@pytest.mark.transformers
def test_names_where_the_library_is_not_installed(bert, monkeypatch):
    part = only_part(bert)
    monkeypatch.setitem(sys.modules, "transformers", None)
    skeleton, why = skeleton_of(part)
    assert skeleton.origin == "names"
    assert "needs transformers, which is not installed" in why


@pytest.mark.transformers
def test_files_that_do_not_fit_the_class_are_no_reason_to_guess(bert):
    save_file(WEIGHTS, bert / "model.safetensors")
    with pytest.raises(CheckpointError, match="BertModel needs"):
        skeleton_of(only_part(bert))


def pipeline(folder, **components):
    folder.mkdir()
    index = {"_class_name": "APipeline", **components}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_the_parts_of_a_pipeline(tmp_path):
    folder = pipeline(
        tmp_path / "pipe",
        unet=["diffusers", "UNet"],
        extra=["my_module", "Extra"],
        scheduler=["diffusers", "DDIMScheduler"],
        absent=[None, None],
    )
    write(folder / "unet" / "diffusion_pytorch_model.safetensors", {"_class_name": "ZebraModel"})
    write(folder / "extra" / "model.safetensors")
    (folder / "scheduler").mkdir()
    parts = {str(part.place): part for part in find_parts(folder)}
    assert {name: part.library for name, part in parts.items()} == {"unet": "diffusers", "extra": None}
    assert parts["unet"].shards.path == folder / "unet"
    assert parts["extra"].why_names == "Extra is of my_module"
    assert skeleton_of(parts["extra"])[1] == "Extra is of my_module"


def test_a_pipeline_without_weights(tmp_path):
    folder = pipeline(tmp_path / "pipe", scheduler=["diffusers", "DDIMScheduler"])
    (folder / "scheduler").mkdir()
    with pytest.raises(CheckpointError) as caught:
        find_parts(folder)
    assert str(caught.value) == f"{folder}: no component of the pipeline has weights"


@pytest.mark.parametrize("where", ["file", "folder", "with a config", "pipeline"])
def test_what_is_int8_already_is_refused(where, tmp_path):
    model = w8a16.quantize(nn.Sequential(nn.Linear(32, 40)))
    if where == "pipeline":
        source = pipeline(tmp_path / "pipe", unet=["diffusers", "UNet"])
        w8a16.save(model, source / "unet")
    else:
        source = tmp_path / "int8"
        file = w8a16.save(model, source)
        source = file if where == "file" else source
        if where == "with a config":
            (source / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="quantized"):
        find_parts(source)


@pytest.mark.parametrize("config", [{}, {"_class_name": "ZebraModel"}], ids=["transformers", "diffusers"])
def test_the_method_of_a_config_is_named(config, tmp_path):
    write(tmp_path / "model.safetensors", {**config, "quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(CheckpointError, match="already quantized \\(gptq\\)"):
        find_parts(tmp_path)


@pytest.mark.parametrize("config", [{}, None], ids=["a config", "no config"])
def test_the_method_of_tensors_is_named(config, tmp_path):
    file = write(tmp_path / "model.safetensors", config)
    codes = torch.ones(4, 4, dtype=torch.int32)
    save_file({f"a.{name}": codes.clone() for name in ("qweight", "qzeros", "g_idx")}, file)
    for source in (tmp_path, file):
        with pytest.raises(CheckpointError, match=r"already quantized \(GPTQ: "):
            find_parts(source)


def test_one_of_several_files(tmp_path):
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*b\.safetensors"):
        find_parts(tmp_path)
    part = only_part(tmp_path, weights="b.safetensors")
    assert [header.path.name for header in part.shards.headers] == ["b.safetensors"]


def test_nothing_there(tmp_path):
    with pytest.raises(ResourceError, match="no such file"):
        find_parts(tmp_path / "gone")


@pytest.mark.parametrize("text", ["[]", "{", "\xff"])
def test_a_config_that_cannot_be_read(text, tmp_path):
    write(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(W8A16Error, match=r"config\.json"):
        find_parts(tmp_path)
