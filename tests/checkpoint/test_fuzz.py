"""Damaged headers: each gives the model that was saved, or an error of ours; never another exception."""

import copy
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import w8a16
from support.files import Block, bits, every_tensor, not_hanging, on_meta, read_raw, saved_block, write_raw

# The same examples every time: a test that fails now and then teaches nothing.
SETTINGS = settings(
    derandomize=True,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ODD = [
    *(None, True, False, 0, 1, -1, 3, 64, 2**31, 2**63, 2**64, 10**30, 0.5, 1e400, -1e400, float("nan")),
    *(
        "",
        "F32",
        "I8",
        "I32",
        "U8",
        "float16",
        "linear",
        "first",
        "positions",
        "first.bias",
        "\x1b",
        "\ud800",
    ),
    *([], [[]], {}, [0], [0, 0], [64, 32], [2**62, 2**62, 0], ["positions"] * 2, {"first.bias": "counter"}),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    torch.manual_seed(0)
    return saved_block(tmp_path_factory.mktemp("fuzz"))


def load_or_refuse(model, file):
    """Load into a skeleton; if that works, every tensor must be the one that was saved."""
    target = on_meta(Block)
    refused = None
    try:
        with not_hanging():
            w8a16.load(target, file)
    except w8a16.W8A16Error as error:
        refused = str(error)
    if refused is not None:
        assert refused.startswith(str(file))
        return
    expected, found = every_tensor(model), every_tensor(target)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


@SETTINGS
@given(data=st.data())
def test_flipped_bytes(good, tmp_path, data):
    model, file = good
    content = bytearray(file.read_bytes())
    end = len(content) - len(read_raw(file)[1])
    places = st.tuples(st.integers(0, end - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] = value
    damaged = tmp_path / "flipped.safetensors"
    damaged.write_bytes(content)
    load_or_refuse(model, damaged)


@SETTINGS
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated(good, tmp_path, share):
    model, file = good
    content = file.read_bytes()
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes(content[: int(share * len(content))])
    with pytest.raises(w8a16.W8A16Error):
        w8a16.load(on_meta(Block), damaged)
    load_or_refuse(model, damaged)


def places_in(value, path=()):
    """The path of every value inside nested maps and lists."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places_in(inner, (*path, key))


def replaced(document, path, value):
    document = copy.deepcopy(document)
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    return document


@SETTINGS
@given(data=st.data(), value=st.sampled_from(ODD))
def test_odd_values_in_the_header(good, tmp_path, data, value):
    """Well-formed JSON with one wrong value reaches deeper than random bytes."""
    model, file = good
    header, content = read_raw(file)
    path = data.draw(st.sampled_from(list(places_in(header))))
    load_or_refuse(model, write_raw(tmp_path / "odd.safetensors", replaced(header, path, value), content))


def test_odd_values_in_the_manifest(good, tmp_path):
    """It is small, so every odd value is tried at every place."""
    model, file = good
    header, content = read_raw(file)
    manifest = json.loads(header["__metadata__"]["w8a16"])
    for path in places_in(manifest):
        for value in ODD:
            header["__metadata__"]["w8a16"] = json.dumps(replaced(manifest, path, value))
            load_or_refuse(model, write_raw(tmp_path / "odd.safetensors", header, content))
