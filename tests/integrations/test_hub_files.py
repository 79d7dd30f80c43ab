"""Which files of a repository are downloaded: names alone decide."""

import pytest

from w8a16.integrations.hub_files import choose, missing_parts


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        pytest.param(["model.safetensors"], ["model.fp16.safetensors"], id="variant"),
        pytest.param(["model.fp16.safetensors"], [], id="only a variant"),
        pytest.param(
            ["model.safetensors.index.json", "model-00001-of-00001.safetensors"],
            [
                *("model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"),
                "model-00001-of-00002.bf16.safetensors",
            ],
            id="sharded variants, named as today and as formerly",
        ),
        pytest.param(
            ["a/model.safetensors", "b/model.fp16.safetensors"], ["a/model.fp16.safetensors"], id="folders"
        ),
        pytest.param(
            ["sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors"], [], id="dots of a version"
        ),
        pytest.param(
            ["model_index.json", "unet/diffusion_pytorch_model.safetensors"],
            ["flux1-dev.safetensors", "ae.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"],
            id="single files beside a pipeline",
        ),
        pytest.param(
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json"],
            ["consolidated.safetensors", "consolidated.safetensors.index.json"],
            id="consolidated copy",
        ),
        pytest.param(["consolidated.safetensors"], [], id="only consolidated"),
        pytest.param(
            ["a.json", "tokenizer.model", "merges.txt", "LICENSE", "README.md", "chat_template.jinja"],
            ["x.py", "pytorch_model.bin", "x.pt", "x.pth", "x.pkl", "x.ckpt", "tf_model.h5", "model.onnx"],
            id="kinds",
        ),
        pytest.param(["a.json"], [".gitattributes", ".cache/b.json", ".safetensors"], id="hidden"),
    ],
)
def test_choose(files, left_out):
    assert choose([*left_out, *files]) == files
    assert choose([*files, *reversed(left_out)]) == files


def test_missing_parts():
    assert missing_parts(["model.safetensors", "a-00001-of-00002.json"]) == []
    assert missing_parts(["a/m-00003-of-00003.safetensors", "a/m-00001-of-00003.safetensors"]) == [
        "a/m-00002-of-00003.safetensors"
    ]
    assert missing_parts(["m-00002-of-00002.safetensors", "m-00001-of-00002.fp16.safetensors"]) == [
        *("m-00001-of-00002.safetensors", "m-00002-of-00002.fp16.safetensors")
    ]
