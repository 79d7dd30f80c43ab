"""Checkpoints without a class: names that no module can have, and names that int8 weights would get."""

import pytest
import torch

from support.files import bits
from support.numerics import name_of
from support.streaming import in_turn, stream, tensors_in, write_checkpoint
from w8a16.checkpoint import open_checkpoint
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.container.header import DTYPES
from w8a16.checkpoint.streaming import plan_checkpoint
from w8a16.errors import CheckpointError

HOSTILE = [
    "a..b",
    ".a",
    "a.",
    ".",
    "training",
    "forward.weight",
    "_modules.x",
    "__class__",
    "x.y",
    "x.y.z",
    "line\nbreak.weight",
    "\x1b[31mred.weight",
    "<script>alert(1)</script>.weight",
    "../../etc/passwd",
    "\u202egnp.weight",
    ".".join("abcdefghij" * 20),
    "long" * 500,
]


@pytest.mark.parametrize("shards", [1, 3])
def test_hostile_names(shards, tmp_path, cut_small):
    """Nothing is lost: what cannot be a module's is copied, bit for bit, and everything else is int8."""
    cut_small(512)
    tensors = {name: torch.randn(32, 40) for name in HOSTILE}
    tensors |= {"plain.weight": torch.randn(32, 40), "0.1": torch.randn(())}
    found = write_checkpoint(tensors, tmp_path / "float", in_turn(tensors, shards) if shards > 1 else None)
    skeleton = skeleton_from_names(found)
    assert {"a..b", "training", "x.y"} <= skeleton.copied.keys()
    stream(found, skeleton, tmp_path / "int8")
    written = tensors_in(tmp_path / "int8")
    for name in (*skeleton.copied, "0.1"):
        assert bits(written.pop(name)) == bits(tensors[name]), name
    manifest = open_checkpoint(tmp_path / "int8").manifest
    assert manifest.origin == "names"
    weights = {
        f"{path}.{name}" if path else name
        for path, record in manifest.modules.items()
        for name in record.weights
    }
    assert weights == tensors.keys() - skeleton.copied.keys() - {"0.1"}
    assert len(written) == 2 * len(weights)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=map(name_of, DTYPES.values()))
def test_every_dtype_of_the_format(dtype, tmp_path, cut_small):
    """Beside a name that no module can have; and without dimensions, empty, long."""
    cut_small(64)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 100, (40 * 8 * 16,), generator=generator, dtype=torch.uint8)
    if dtype == torch.bool:
        raw = raw % 2
    values = raw[: 40 * 8 * dtype.itemsize].view(dtype)
    tensors = {
        "vector": values,
        "a..matrix": values.view(40, 8),
        "one": values[0],
        "none": values[:0].view(0, 3),
        "no columns": values[:0].view(3, 0),
    }
    if not dtype.is_floating_point or dtype.itemsize == 1:
        tensors["matrix"] = values.view(8, 40)
    tensors["int8.weight"] = torch.randn(32, 32)
    shards = write_checkpoint(tensors, tmp_path / "float")
    stream(shards, skeleton_from_names(shards), tmp_path / "int8", threads=2)
    written = tensors_in(tmp_path / "int8")
    assert written.keys() == (tensors.keys() - {"int8.weight"}) | {"int8.int8_weights", "int8.scales"}
    for name in tensors.keys() - {"int8.weight"}:
        assert (written[name].dtype, written[name].shape) == (dtype, tensors[name].shape)
        assert bits(written[name]) == bits(tensors[name]), name


@pytest.mark.parametrize(
    "weight, made",
    [
        ("x.weight", "x.int8_weights"),
        ("x.weight", "x.scales"),
        ("table", "table_scales"),
        ("weight", "scales"),
    ],
)
def test_a_name_that_would_be_written_is_taken(weight, made, tmp_path):
    tensors = {weight: torch.randn(32, 40), made: torch.ones(32)}
    shards = write_checkpoint(tensors, tmp_path / "float")
    with pytest.raises(CheckpointError) as caught:
        skeleton_from_names(shards)
    assert f"{weight} would be written as {made}" in str(caught.value)


def test_no_tensors_at_all(tmp_path):
    shards = write_checkpoint({}, tmp_path / "float")
    with pytest.raises(CheckpointError) as caught:
        plan_checkpoint(shards, skeleton_from_names(shards))
    assert str(caught.value) == f"{tmp_path / 'float'}: holds no tensors, so there is nothing to quantize"
