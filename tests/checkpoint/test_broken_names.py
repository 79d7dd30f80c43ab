"""Names from files and paths from users: escaped where shown, and never a hang."""

import json
import os

import pytest

from support.files import not_hanging, write_raw
from support.twins import mlp
from w8a16 import load
from w8a16.checkpoint import read_header
from w8a16.errors import CheckpointError, ResourceError

TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.fixture(autouse=True)
def _no_hang():
    with not_hanging():
        yield


def message(file, error=CheckpointError):
    with pytest.raises(error) as caught:
        read_header(file)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\nb\0", "a\\nb\\x00"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("<script>é", "<script>é"),
    ],
)
@pytest.mark.parametrize("what", ["wrong dtype", "duplicate"])
def test_names_are_escaped(tmp_path, name, shown, what):
    key = json.dumps(name)
    entry = json.dumps({**TENSOR, "dtype": "F31" if what == "wrong dtype" else "F32"})
    text = f"{{{key}:{entry}}}" if what == "wrong dtype" else f"{{{key}:{entry},{key}:{entry}}}"
    told = message(write_raw(tmp_path / "x.safetensors", text, bytes(4)))
    assert shown in told
    assert told.isprintable()


def test_empty_name(tmp_path):
    assert "empty name" in message(write_raw(tmp_path / "x.safetensors", {"": TENSOR}, bytes(4)))


@pytest.mark.parametrize("function", [read_header, lambda path: load(mlp(), path)])
def test_paths_that_are_no_file(tmp_path, function):
    """Opening a FIFO would wait for a writer for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder" / "model.safetensors").mkdir(parents=True)
    os.symlink("loop", tmp_path / "loop")
    for name, text in {
        "fifo": "not a regular file",
        "folder/model.safetensors": "not a regular file"
        if function is read_header
        else "no model.safetensors",
        "missing": "no such file",
        "loop": "Too many levels of symbolic links",
    }.items():
        with pytest.raises((ResourceError, CheckpointError)) as caught:
            function(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {text}")
    with pytest.raises(ResourceError, match="/dev/null: not a regular file"):
        read_header(type(tmp_path)("/dev/null"))


def test_a_name_that_is_too_long(tmp_path):
    assert message(tmp_path / ("x" * 300), ResourceError).endswith(": File name too long")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    file = write_raw(tmp_path / "x.safetensors", {"a": TENSOR}, bytes(4))
    file.chmod(0)
    assert message(file, ResourceError).endswith(": Permission denied")
