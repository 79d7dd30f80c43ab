"""An output that would touch anything that exists is refused before a byte of the source is read."""

import os
import shutil

import pytest

from support.files import checksums
from w8a16.checkpoint.output.stage import staged


@pytest.fixture
def garbage(tmp_path):
    """A source that nobody can read: whoever tries gives another error than the one expected."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"\xff not JSON")
    os.mkfifo(folder / "model.safetensors")  # whoever opens it waits for ever
    return folder


def refused(run, src, dst):
    result = run("quantize", src, dst)
    assert result.code == 4
    assert result.out == ""
    name, _, text = result.err.strip().removeprefix("error: ").partition(": ")
    assert name == str(dst)
    return text


def test_the_source_is_garbage_indeed(run, garbage, tmp_path):
    result = run("quantize", garbage, tmp_path / "free")
    assert result.code == 5
    assert "source/model.safetensors: not a regular file" in result.err


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link", "dangling link", "fifo"])
def test_it_exists(run, garbage, tmp_path, kind):
    dst = tmp_path / "taken"
    if kind == "folder":
        dst.mkdir()
        (dst / "model.safetensors").write_text("mine")
    elif kind == "empty folder":
        dst.mkdir()
    elif kind == "file":
        dst.write_text("mine")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        dst.symlink_to("elsewhere")
    elif kind == "dangling link":
        dst.symlink_to("nowhere")
    else:
        os.mkfifo(dst)
    before = sorted(tmp_path.rglob("*")), checksums(tmp_path / "taken")
    assert refused(run, garbage, dst) == "exists already; remove it or name a new folder"
    assert (sorted(tmp_path.rglob("*")), checksums(tmp_path / "taken")) == before


@pytest.mark.parametrize(
    "way", ["{src}", "{src}/", "{src}/../source", "{link}", "{link}/../source", "{src}/."]
)
def test_it_is_the_input(run, garbage, tmp_path, way):
    link = tmp_path / "link"
    link.symlink_to(garbage)
    dst = way.format(src=garbage, link=link)
    text = refused(run, garbage, type(tmp_path)(dst))
    assert text == "is the input itself; name a new folder"
    assert refused(run, link, type(tmp_path)(dst)) == text


@pytest.mark.parametrize("way", ["{src}/int8", "{src}/deep/er/int8", "{link}/int8", "{src}/../source/int8"])
def test_it_lies_inside_the_input(run, garbage, tmp_path, way):
    link = tmp_path / "link"
    link.symlink_to(garbage)
    dst = way.format(src=garbage, link=link)
    expected = f"lies inside the input {garbage}; name a folder elsewhere"
    assert refused(run, garbage, type(tmp_path)(dst)) == expected


def test_a_name_that_only_begins_like_the_input_is_fine(run, garbage, tmp_path):
    """source-int8 beside source: the comparison is by parts of the path, not by letters."""
    assert run("quantize", garbage, f"{garbage}-int8").code == 5


def test_its_parent_is_missing(run, garbage, tmp_path):
    assert refused(run, garbage, tmp_path / "no" / "int8") == "its parent folder does not exist"
    (tmp_path / "file").write_text("mine")
    assert refused(run, garbage, tmp_path / "file" / "int8") == "its parent folder does not exist"


def test_its_parent_is_not_writable(run, garbage, tmp_path, monkeypatch):
    """Asked of the system through os.access, as root may write everywhere."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    assert refused(run, garbage, tmp_path / "int8") == "its parent folder is not writable"


def test_nothing_is_downloaded_for_an_output_that_is_refused(run, tmp_path, monkeypatch):
    from w8a16.cli import quantize

    monkeypatch.setattr(quantize, "fetch", lambda *_, **__: pytest.fail("it was downloaded"))
    (tmp_path / "taken").mkdir()
    assert refused(run, "owner/model", tmp_path / "taken") == "exists already; remove it or name a new folder"


def test_control_characters_are_escaped(run, garbage, tmp_path):
    dst = tmp_path / "evil\x1b[31m\nname"
    dst.mkdir()
    result = run("quantize", garbage, dst)
    assert result.code == 4
    assert "evil\\x1b[31m\\nname: exists already" in result.err
    assert "\x1b" not in result.err


@pytest.mark.parametrize("where", ["loop", "loop/int8"])
def test_links_in_a_circle(run, garbage, tmp_path, where):
    (tmp_path / "loop").symlink_to("loop")
    result = run("quantize", garbage, tmp_path / where)
    assert result.code in (4, 5)
    assert "internal error" not in result.err


@pytest.mark.transformers
def test_a_name_that_is_too_long(run, bert, tmp_path):
    before = checksums(tmp_path)
    result = run("quantize", bert, tmp_path / ("y" * 256))
    assert result.code == 4
    assert result.err.strip() == f"error: {tmp_path}/{'y' * 256}: the name is longer than 255 bytes"
    assert checksums(tmp_path) == before
    assert run("quantize", bert, tmp_path / ("y" * 255)).code == 0  # the stage's name is no longer than that


def test_another_run_is_writing_it(run, bert, dst):
    with staged(dst) as stage:
        expected = f"process {os.getpid()} is writing it; wait, or name another folder"
        assert refused(run, bert, dst) == expected
        assert list(dst.parent.iterdir()) == [stage.path]


@pytest.mark.transformers
@pytest.mark.parametrize("clean", [False, True])
def test_what_a_killed_run_left_is_told_and_removed_on_request(run, bert, dst, clean):
    left = dst.with_name(f".{dst.name}.w8a16-1.partial")
    left.mkdir()
    (left / "file").write_bytes(bytes(2000))
    result = run("quantize", bert, dst, *["--clean"] * clean)
    assert result.code == 0
    start, end = ("removed", "") if clean else ("an interrupted run left", "--clean removes it\n")
    assert result.err.startswith(start)
    assert f"{left} (2.00 kB, " in result.err
    assert result.err.endswith(end)
    assert left.exists() == (not clean)


@pytest.mark.transformers
@pytest.mark.parametrize("name", [b"\xff\xfe", "a b", "\u202e", "-"], ids=ascii)
def test_names_that_are_odd_but_fine(run, bert, dst, name):
    """Also in what is printed, and in the manifest."""
    output = dst.with_name(os.fsdecode(name))
    arguments = ["--json", "--", bert, output]
    result = run("quantize", *arguments)
    assert result.code == 0, result.err
    assert (output / "model.safetensors").is_file()
    assert run("inspect", "--", output).code == 0


@pytest.mark.transformers
def test_full_disk(run, bert, dst, nothing_written, monkeypatch):
    before = checksums(bert)
    usage = type(shutil.disk_usage("/"))(10**9, 10**9, 17)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    result = run("quantize", bert, dst)
    assert result.code == 5
    assert "bytes, have 17" in result.err
    nothing_written(before)
