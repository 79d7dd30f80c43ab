"""Files that change, vanish or fail while they are read."""

import io
import os
import sys

import pytest

from support.files import Block, saved_block, write_raw
from w8a16 import load
from w8a16.checkpoint import open_shards, read_header
from w8a16.checkpoint.container import disk
from w8a16.checkpoint.container.header import open_again
from w8a16.checkpoint.reading import read_tensors
from w8a16.errors import ResourceError

HEADER = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.fixture
def file(tmp_path):
    return write_raw(tmp_path / "model.safetensors", HEADER, bytes(4))


def refusal(function, *arguments):
    with pytest.raises(ResourceError) as caught:
        function(*arguments)
    assert caught.value.exit_code == 5
    return str(caught.value)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
def test_it_cannot_be_opened(file, monkeypatch, error):
    """Root may open everything, so the refusal is made up."""

    def refuse(path, *others):
        raise error

    monkeypatch.setattr(os, "open", refuse)
    for path in (file, file.parent):
        assert refusal(open_shards, path) == f"{file}: {error.strerror}"


def test_the_folder_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    assert refusal(open_shards, tmp_path) == f"{tmp_path}: Permission denied"


def test_a_read_fails(file, monkeypatch):
    class Failing(io.BufferedReader):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdopen", lambda fd, mode: Failing(io.FileIO(fd)))
    assert refusal(read_header, file) == f"{file}: Input/output error"


def test_it_is_cut_while_its_header_is_read(file, monkeypatch):
    class Cutting(io.BufferedReader):
        def read(self, size=-1):
            return super().read(size)[:8]  # as if it ended after the length

    monkeypatch.setattr(os, "fdopen", lambda fd, mode: Cutting(io.FileIO(fd)))
    length = file.stat().st_size - 12
    assert refusal(read_header, file) == (
        f"{file}: expected {length} bytes of header, read 8; was the file changed meanwhile?"
    )


@pytest.mark.parametrize("how", ["written", "cut", "exchanged", "touched"])
def test_it_is_another_file_when_its_tensors_are_read(file, how):
    header = read_header(file)
    disk.discard(open_again(header))
    if how == "written":
        write_raw(file, HEADER, b"1234 and more")
    elif how == "cut":
        os.truncate(file, 20)
    elif how == "exchanged":
        write_raw(file.with_name("new"), HEADER, b"1234").replace(file)
    else:
        os.utime(file, ns=(0, 1))
    assert refusal(open_again, header) == f"{file}: was changed or exchanged after its header was read"
    file.unlink()
    assert refusal(open_again, header) == f"{file}: no such file"


def test_loading_notices(tmp_path, monkeypatch):
    """Between the header and the tensors the file is replaced by another of the same layout."""
    _, file = saved_block(tmp_path)
    real = read_tensors

    def late(*arguments):
        file.with_name("new").write_bytes(file.read_bytes())
        file.with_name("new").replace(file)
        return real(*arguments)

    # By the module itself: w8a16.checkpoint.load is the function.
    monkeypatch.setattr(sys.modules["w8a16.checkpoint.load"], "read_tensors", late)
    assert refusal(load, Block(), file) == f"{file}: was changed or exchanged after its header was read"


def test_links_to_files_are_fine(file, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(file)
    header = read_header(tmp_path / "link.safetensors")
    assert list(header.tensors) == ["a"]
    disk.discard(open_again(header))


@pytest.mark.parametrize("name", ["a\0b.safetensors", "\ud800.safetensors"])
def test_names_that_no_file_can_have(tmp_path, name):
    text = refusal(read_header, tmp_path / name)
    assert text.isprintable()
    assert text.startswith(f"{tmp_path}/")
    assert refusal(open_shards, tmp_path / name).endswith(": no such file or folder")
