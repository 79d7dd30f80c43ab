"""Files that are not complete and consistent safetensors: a clear error, naming the file and the tensor."""

import json
import struct

import pytest

from support.files import not_hanging, write_raw
from w8a16.checkpoint import read_header
from w8a16.errors import CheckpointError

NO_OBJECT = "the header is not a JSON object: it does not begin with {"


@pytest.fixture(autouse=True)
def _no_hang():
    with not_hanging():
        yield


def problem(file):
    """What `read_header` says about a file, after the file's name."""
    with pytest.raises(CheckpointError) as caught:
        read_header(file)
    name, _, text = str(caught.value).partition(": ")
    assert name == str(file)
    return text


def tensor(dtype="F32", shape=(1,), offsets=(0, 4), **other):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **other}


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "no header length in a file of 0 bytes"),
        (b"1234", "no header length in a file of 4 bytes"),
        (struct.pack("<Q", 3) + b"{}", "a header of 3 bytes in a file of 10 bytes"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", f"a header of {2**64 - 1} bytes in a file of 10 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", f"a header of {2**63} bytes in a file of 10 bytes"),
    ],
)
def test_header_length(tmp_path, content, text):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    assert problem(file) == f"{text}; download it again?"


def test_header_beyond_the_limit_is_not_read(tmp_path):
    """A sparse file of 1 GB that says it is all header."""
    file = tmp_path / "x.safetensors"
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", 2**30 - 8))
        opened.truncate(2**30)
    assert problem(file).startswith(f"a header of {2**30 - 8} bytes in a file of {2**30} bytes")


@pytest.mark.parametrize(
    "header, text",
    [
        *(
            (start, NO_OBJECT)
            for start in (b"[]", b"null", b"3", b"", b" {}", b"\xef\xbb\xbf{}", b"[" * 200_000)
        ),
        (b"{'a': 1}", 'the header is not a JSON object (expected " at character 1)'),
        (b'{"a": ', "a: expected dtype, shape and data_offsets"),
        (b"{} {}", "the header is not a JSON object (expected its end at character 3)"),
        (b'{"a": {,}}', "the header is not a JSON object (Expecting property name"),
        (b'{"a', "the header is not a JSON object (Unterminated string"),
        (b'{"a"}', "the header is not a JSON object (expected : at character 4)"),
        (b"{", 'the header is not a JSON object (expected " at character 1)'),
        (b'{"a\t": 1}', "the header is not a JSON object (Invalid control character"),
        (b'{"a": {"dtype": NaN}}', "the header is not a JSON object (NaN is no JSON value)"),
        (b'{"a": {"shape": [-Infinity]}}', "the header is not a JSON object (-Infinity is no JSON value)"),
        (b'{"a\xff": 1}', "the header is not valid UTF-8 (invalid start byte)"),
        (b'{"a\xed\xa0\x80": 1}', "the header is not valid UTF-8"),
        (b'{"a":' + b"[" * 200_000, "a: expected dtype, shape and data_offsets"),
        (b'{"a":{"shape":' + b"[" * 3000 + b"]" * 900 + b"}}", "the header is nested too deep"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "a: expected dtype, shape and data_offsets"),
    ],
)
def test_header_that_is_no_json_object(tmp_path, header, text):
    assert problem(write_raw(tmp_path / "x.safetensors", header)).startswith(text)


@pytest.mark.parametrize("metadata", [None, [], "x", {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": -(10**30)}])
def test_metadata_is_a_map_of_strings(tmp_path, metadata):
    file = write_raw(tmp_path / "x.safetensors", {"__metadata__": metadata})
    assert problem(file) == "__metadata__: expected a map of strings"


@pytest.mark.parametrize("cut", [1, 4, 8, 100])
def test_truncated_data(tmp_path, cut):
    file = write_raw(
        tmp_path / "x.safetensors", {"a": tensor(shape=[32], offsets=[0, 128])}, bytes(128 - cut)
    )
    total = file.stat().st_size
    assert problem(file) == (
        f"expected {total + cut} bytes, found {total}; the file is cut short: download it again"
    )


def test_trailing_bytes(tmp_path):
    file = write_raw(tmp_path / "x.safetensors", {"a": tensor()}, bytes(7))
    total = file.stat().st_size
    assert problem(file) == f"expected {total - 3} bytes, found {total} after a"


@pytest.mark.parametrize(
    "header, size, text",
    [
        ({"a": tensor(), "b": tensor(offsets=[2, 6])}, 6, "b overlaps a"),
        ({"a": tensor(), "b": tensor()}, 4, "b overlaps a"),
        ({"a": tensor(), "b": tensor(offsets=[8, 12])}, 12, "b leaves a hole after a"),
        ({"a": tensor(offsets=[4, 8])}, 8, "a leaves a hole after the header"),
        (
            {"b": tensor(offsets=[4, 8]), "a": tensor(offsets=[12, 16])},
            16,
            "b leaves a hole after the header",
        ),
    ],
)
def test_overlaps_and_holes(tmp_path, header, size, text):
    assert problem(write_raw(tmp_path / "x.safetensors", header, bytes(size))) == text


@pytest.mark.parametrize("key", ["a", "__metadata__"])
def test_duplicate_keys(tmp_path, key):
    """The safetensors library takes the last one silently."""
    one, other = json.dumps({} if key == "__metadata__" else tensor()), json.dumps(tensor())
    file = write_raw(tmp_path / "x.safetensors", f'{{"{key}":{one},"z":{other},"{key}":{one}}}', bytes(8))
    assert problem(file) == f"duplicate key in the header: {key}"


def test_duplicate_key_inside_a_tensor(tmp_path):
    text = '{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,4]}}'
    assert problem(write_raw(tmp_path / "x.safetensors", text, bytes(4))).endswith("header: shape")


def test_a_duplicate_among_very_many_keys(tmp_path):
    """Searching for it must not take longer than reading the header."""
    entry = json.dumps(tensor("U8", [0], [0, 0]))
    keys = [*(f"t{number}" for number in range(100_000)), "t7"]
    file = write_raw(tmp_path / "x.safetensors", "{" + ",".join(f'"{key}":{entry}' for key in keys) + "}")
    with not_hanging(10):
        assert problem(file) == "duplicate key in the header: t7"


@pytest.mark.parametrize("size", [-1, 1.0, 2**63, 10**400, True, None, "1", [1]], ids=str)
def test_dimensions_that_are_no_size(tmp_path, size):
    file = write_raw(tmp_path / "x.safetensors", {"a": tensor(shape=[size])}, bytes(4))
    text = problem(file)
    assert text.startswith("a: shape [")
    assert text.endswith(": expected up to 8 sizes")
    assert len(text) < 150


@pytest.mark.parametrize("digits, shown", [("9" * 5000, "inf"), ("1" + "0" * 20, "1e+20"), ("-0", "-0.0")])
def test_dimensions_that_no_integer_holds(tmp_path, digits, shown):
    """Python itself refuses to convert so many digits, without saying where they stand."""
    text = json.dumps({"a": tensor()}).replace("[1]", f"[{digits}]")
    file = write_raw(tmp_path / "x.safetensors", text, bytes(4))
    assert problem(file) == f"a: shape [{shown}]: expected up to 8 sizes"


@pytest.mark.parametrize("shape", [[2**62, 2**62], [2**40, 0]], ids=str)
def test_more_elements_than_any_tensor_has(tmp_path, shape):
    """The second needs no bytes, so its size is consistent, and still it is absurd."""
    file = write_raw(tmp_path / "x.safetensors", {"a": tensor(shape=shape, offsets=[0, 0])}, b"")
    assert problem(file) == f"a: shape {shape}: more than {2**40} elements"


@pytest.mark.parametrize("shape", [[1] * 9, 1, None, "11"])
def test_shapes_that_are_no_list_of_sizes(tmp_path, shape):
    file = write_raw(tmp_path / "x.safetensors", {"a": {**tensor(), "shape": shape}}, bytes(4))
    assert problem(file) == f"a: shape {shape}: expected up to 8 sizes"


@pytest.mark.parametrize(
    "offsets", [[0], [0, 4, 8], [-4, 0], [0, 4.0], [0, "4"], [None, 4], 4, [0, 2**63]], ids=str
)
def test_offsets_that_are_no_pair(tmp_path, offsets):
    file = write_raw(tmp_path / "x.safetensors", {"a": {**tensor(), "data_offsets": offsets}}, bytes(4))
    assert problem(file) == f"a: data_offsets {offsets}: expected [begin, end]"


@pytest.mark.parametrize(
    "given, text",
    [
        (tensor("F16"), "a: F16 [1] needs 2 bytes, has 4"),
        (tensor(shape=[2]), "a: F32 [2] needs 8 bytes, has 4"),
        (tensor(shape=[]), None),
        (tensor(offsets=[4, 0]), "a: F32 [1] needs 4 bytes, has -4"),
    ],
)
def test_dtype_shape_and_offsets_must_agree(tmp_path, given, text):
    file = write_raw(tmp_path / "x.safetensors", {"a": given}, bytes(4))
    if text is None:
        assert read_header(file).tensors["a"].shape == ()  # a scalar is one element
    else:
        assert problem(file) == text


@pytest.mark.parametrize("dtype", ["F31", "f32", "", ["F32"], "F4", "F6_E2M3", "F6_E3M2", "I4", None, 32])
def test_unknown_dtypes(tmp_path, dtype):
    file = write_raw(tmp_path / "x.safetensors", {"a": tensor(dtype)}, bytes(4))
    assert problem(file).startswith(f"a: dtype {dtype!r}; supported: F64, F32, F16, BF16, ")


@pytest.mark.parametrize(
    "entry", [None, [], "F32", {}, {"dtype": "F32"}, tensor(more=1), tensor({})], ids=str
)
def test_entries_without_the_three_fields(tmp_path, entry):
    file = write_raw(tmp_path / "x.safetensors", {"a": entry}, bytes(4))
    assert problem(file) == "a: expected dtype, shape and data_offsets"


def test_a_good_file_is_read(tmp_path):
    """The frame of all the tests above: without the damage, the file is fine."""
    header = read_header(write_raw(tmp_path / "x.safetensors", {"a": tensor()}, bytes(4)))
    assert list(header.tensors) == ["a"]
    assert read_header(write_raw(tmp_path / "empty.safetensors", {})).tensors == {}
