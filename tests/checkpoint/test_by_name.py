"""Skeletons made from tensor names and shapes: what each becomes, and names that no module can have."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import w8a16
from w8a16.checkpoint import Header, Shards, TensorInfo
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.skeleton import Piece
from w8a16.convert import execute
from w8a16.errors import CheckpointError


def shards(**tensors):
    """Opened files that hold tensors of these shapes (float32) or of these (shape, dtype)."""
    infos = {}
    for name, value in tensors.items():
        shape, dtype = value if value and isinstance(value[-1], torch.dtype) else (value, torch.float32)
        infos[name] = TensorInfo(dtype, tuple(shape), 0, 0)
    return Shards(Path("x"), (Header(Path("x"), infos, {}, None),), None)


def verdicts(skeleton):
    return {row.name: (row.kind, row.verdict, row.reason) for row in w8a16.plan(skeleton.model).rows}


@pytest.mark.parametrize(
    "name, shape, module, lead",
    [
        ("model.layers.0.self_attn.q_proj.weight", (64, 32), nn.Linear, 1),
        ("model.embed_tokens.weight", (100, 32), nn.Embedding, 1),
        ("bert.embeddings.word_embeddings.weight", (100, 32), nn.Embedding, 1),
        ("transformer.wte.weight", (100, 32), nn.Embedding, 1),
        ("shared.weight", (100, 32), nn.Embedding, 1),
        ("encoder.conv1.weight", (64, 8, 3), nn.Conv1d, 1),
        ("patch_embed.proj.weight", (64, 3, 16, 16), nn.Conv2d, 1),
        ("video.weight", (64, 3, 2, 4, 4), nn.Conv3d, 1),
        ("mlp.experts.weight", (4, 64, 32), nn.Module, 2),
        ("mlp.experts.0.weight", (4, 64, 32), nn.Module, 2),
        ("mlp.stack.weight", (4, 64, 256), nn.Module, 2),
        ("mlp.experts.gate_up_proj", (4, 64, 32), nn.Module, 2),
        ("attn.in_proj_weight", (96, 32), nn.Module, 1),
        ("lstm.weight_ih_l0", (128, 32), nn.Module, 1),
        ("pos_table", (1, 64, 32), nn.Module, 2),
    ],
)
def test_what_a_weight_becomes(name, shape, module, lead):
    skeleton = skeleton_from_names(shards(**{name: shape}))
    path, _, leaf = name.rpartition(".")
    owner = skeleton.model.get_submodule(path)
    assert type(owner) is module
    assert skeleton.sources == {name: (Piece(name),)}
    assert (skeleton.origin, skeleton.name, skeleton.ignored, skeleton.copied) == (
        "names",
        "tensor names",
        (),
        {},
    )
    (row,) = w8a16.plan(skeleton.model).rows
    assert (row.name, row.verdict, row.shape) == (name, "int8", shape)
    execute(skeleton.model)
    assert owner.layouts[leaf].lead == lead
    assert not owner.layouts[leaf].swapped


@pytest.mark.parametrize(
    "name, shape, dtype",
    [
        ("norm.weight", (32,), torch.float32),
        ("scale", (), torch.float32),
        ("bn.running_mean", (32,), torch.float32),
        ("bn.num_batches_tracked", (), torch.int64),
        ("rotary_emb.inv_freq", (16,), torch.float32),
        ("h.0.attn.mask", (1, 1, 64, 64), torch.float32),
        ("embeddings.position_ids", (1, 512), torch.int64),
        ("q.weight", (64, 64), torch.int8),
        ("table.weight", (64, 64), torch.complex64),
    ],
)
def test_what_stays_as_it_is(name, shape, dtype):
    skeleton = skeleton_from_names(shards(**{name: (shape, dtype)}))
    found = skeleton.model.state_dict()
    assert {key: (tuple(t.shape), t.dtype) for key, t in found.items()} == {name: (shape, dtype)}
    assert all(row.verdict == "float" for row in w8a16.plan(skeleton.model).rows)


def test_a_linear_layer_with_its_bias_in_another_dtype():
    skeleton = skeleton_from_names(shards(**{"q.weight": ((64, 32), torch.bfloat16), "q.bias": (64,)}))
    assert type(skeleton.model.q) is nn.Linear
    assert (skeleton.model.q.weight.dtype, skeleton.model.q.bias.dtype) == (torch.bfloat16, torch.float32)
    assert verdicts(skeleton) == {"q.weight": ("linear", "int8", "converted")}


def test_a_bias_that_does_not_fit_is_no_bias():
    skeleton = skeleton_from_names(shards(**{"q.weight": (64, 32), "q.bias": (31,)}))
    assert type(skeleton.model.q) is nn.Module
    assert verdicts(skeleton)["q.weight"] == ("parameter", "int8", "stored")


@pytest.mark.parametrize("parts", [("weight_g", "weight_v"), ("weight_orig", "weight_u")])
def test_parts_of_reparametrized_weights_stay(parts):
    skeleton = skeleton_from_names(shards(**{f"conv.{part}": (64, 64, 3) for part in parts}))
    assert verdicts(skeleton) == {}
    assert set(skeleton.model.state_dict()) == {f"conv.{part}" for part in parts}


def test_a_name_that_ends_like_one_of_these_parts():
    assert verdicts(skeleton_from_names(shards(proj_v=(64, 64)))) == {
        "proj_v": ("parameter", "int8", "stored")
    }


@pytest.mark.parametrize("size", [(0, 32), (32, 0)])
def test_empty_weights(size, recwarn):
    skeleton = skeleton_from_names(shards(**{"q.weight": size}))
    assert verdicts(skeleton)["q.weight"][1] == "float"
    assert not recwarn.list


@pytest.mark.parametrize(
    "name, reason",
    [
        (".weight", "the name has an empty part"),
        ("a..weight", "the name has an empty part"),
        ("a.", "the name has an empty part"),
        (".", "the name has an empty part"),
        ("forward", "a module cannot hold anything named forward"),
        ("a.__class__.weight", "a module cannot hold anything named __class__"),
        ("a._parameters", "a module cannot hold anything named _parameters"),
        ("training.weight", "a module cannot hold anything named training"),
        ("T_destination", "a module cannot hold anything named T_destination"),
        ("a." * 5000 + "weight", "the name has 5001 parts; up to 64 are read as modules"),
    ],
)
def test_names_that_no_module_can_have_are_copied(name, reason):
    skeleton = skeleton_from_names(shards(**{name: (64, 32), "fine.weight": (64, 32)}))
    assert skeleton.copied == {name: reason}
    assert skeleton.sources == {"fine.weight": (Piece("fine.weight"),)}


def test_a_tensor_that_is_a_prefix_of_others():
    skeleton = skeleton_from_names(shards(**{"a.b": (64, 32), "a.b.c": (64, 32), "a": (2, 2)}))
    reason = "other tensors lie below its name"
    assert skeleton.copied == {"a": reason, "a.b": reason}
    assert set(skeleton.sources) == {"a.b.c"}


@given(
    st.dictionaries(
        st.one_of(
            st.text(min_size=1),
            st.lists(st.sampled_from(["", "weight", "bias", "a", "0", "layouts", "embed"]), min_size=1).map(
                ".".join
            ),
        ).filter(bool),
        st.sampled_from([(), (64,), (64, 32), (8, 8, 3), (4, 32, 200), (0, 3), (2, 2, 2, 2, 2, 2)]),
        max_size=12,
    )
)
def test_any_names_lose_nothing(tensors):
    skeleton = skeleton_from_names(shards(**tensors))
    assert {*skeleton.sources, *skeleton.copied} == set(tensors)
    assert not skeleton.sources.keys() & skeleton.copied.keys()
    found = {key: tuple(tensor.shape) for key, tensor in skeleton.model.state_dict().items()}
    assert found == {name: tensors[name] for name in skeleton.sources}
    execute(skeleton.model)


@pytest.mark.parametrize(
    "weight, taken",
    [
        ("x.weight", "x.int8_weights"),
        ("x.weight", "x.scales"),
        ("weight", "scales"),
        ("x.gate", "x.gate_int8_weights"),
        ("x.gate", "x.gate_scales"),
    ],
)
def test_names_that_would_be_written_twice(weight, taken):
    with pytest.raises(CheckpointError) as caught:
        skeleton_from_names(shards(**{weight: (64, 32), taken: (64,)}))
    assert str(caught.value) == (
        "tensors of the source have the names that int8 weights get; is it quantized already?\n"
        f"  {weight} would be written as {taken}"
    )


@pytest.mark.slow
def test_a_hundred_thousand_tensors():
    names = {f"model.layers.{i // 8}.part{i % 8}.weight": (64, 64) for i in range(100_000)}
    skeleton = skeleton_from_names(shards(**names))
    assert len(skeleton.sources) == 100_000
