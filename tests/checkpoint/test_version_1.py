"""Files of the first format are read for good; nothing writes them any more."""

import hashlib
from pathlib import Path

import torch

import w8a16
from support.files import assert_same_model, edit_manifest
from support.golden import golden_float_model, golden_model
from w8a16.checkpoint import Source, open_checkpoint

FILE = Path(__file__).parent / "golden" / "version-1.safetensors"


def test_the_file_is_the_one_that_the_first_version_wrote():
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert digest == "645ebfcbefb4faf117ffac674b050157d17db937be787222a4297f0002b762f2"


def test_it_loads():
    loaded = w8a16.load(golden_float_model(), FILE)
    assert_same_model(loaded, golden_model())
    assert torch.equal(loaded[1].weight, torch.tensor([[127.0, -64.0, 1.0, 0.0], [-254.0, 2.0, 128.0, 4.0]]))


def test_what_it_says():
    manifest = open_checkpoint(FILE).manifest
    assert (manifest.version, manifest.origin, manifest.source) == (1, "model", None)
    assert manifest.checksums == {}
    assert set(manifest.modules) == {"0", "1", "2", "3"}


def test_its_source_was_a_name(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(FILE.read_bytes())
    edit_manifest(file, lambda manifest: manifest.update(source="bert-base"))
    assert open_checkpoint(file).manifest.source == Source("bert-base")
