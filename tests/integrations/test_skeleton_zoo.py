"""Skeletons of saved models, followed through the files, are the models that their library loads.

For every class of the zoo: the same keys, shapes, dtypes, values, ties and hidden buffers.
"""

import pytest
import torch
from zoo.catalogue import catalogue
from zoo.entry import make_model

from support.skeletons import assert_leads_to, assert_same_hidden_buffers
from w8a16.checkpoint import open_shards
from w8a16.integrations import diffusers as diffusers_folders
from w8a16.integrations import transformers as folders

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

DOZEN = (
    "llama_tied",  # the head is not stored
    "gpt2",  # transposed matrices
    "bert",
    "t5",  # one table under three names
    "marian",  # position tables that no file holds
    "mixtral",  # experts are stored one by one
    "qwen2_moe",
    "gpt_oss",  # experts are stored as [E, K, N]
    "deepseek_v3",
    "mamba",
    "wav2vec2",  # parametrizations
    "clip",
    "whisper",
)
DIFFUSERS = ("unet_2d_condition", "autoencoder_kl", "dit", "pixart")
ENTRIES = {entry.name: entry for entry in catalogue().entries if entry.family != "plain"}


@pytest.mark.parametrize("name", DOZEN)
def test_a_dozen_of_transformers(name, tmp_path):
    assert_skeleton_leads_back(name, tmp_path)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_some_of_diffusers(name, tmp_path):
    pytest.importorskip("diffusers")
    assert_skeleton_leads_back(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in DOZEN + DIFFUSERS])
def test_all_others(name, tmp_path):
    assert_skeleton_leads_back(name, tmp_path)


def assert_skeleton_leads_back(name, folder):
    model = make_model(ENTRIES[name])
    is_transformer = isinstance(model, transformers.PreTrainedModel)
    if not is_transformer and not hasattr(model, "save_pretrained"):
        pytest.skip("a plain module has no folder")
    model.save_pretrained(folder)
    library = folders if is_transformer else diffusers_folders
    # diffusers loads some classes with accelerate only; what was saved is what it would load.
    loaded = folders.load_float(folder) if is_transformer else model
    shards = open_shards(folder)
    skeleton = library.streaming_skeleton(folder, shards)
    assert_leads_to(skeleton, shards, loaded)
    assert (skeleton.origin, skeleton.name, skeleton.ignored) == ("classes", type(model).__name__, ())
    bare = library.skeleton(folder)
    assert_same_hidden_buffers(bare, loaded)
    assert all(tensor.is_meta for tensor in bare.state_dict().values())
    shapes = {key: tensor.shape for key, tensor in loaded.state_dict().items()}
    assert {key: tensor.shape for key, tensor in bare.state_dict().items()} == shapes
    assert torch.get_default_dtype() == torch.float32
