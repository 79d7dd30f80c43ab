"""Every target that would touch something, or cannot be made, is refused before anything is read."""

import os
from pathlib import Path

import pytest

from support.files import checksums, not_hanging
from w8a16.checkpoint.output.stage import check_output
from w8a16.errors import OutputRefusedError

EXISTS = "exists already; remove it or name a new folder"
INPUT = "is the input itself; name a new folder"
NO_PARENT = "its parent folder does not exist"


@pytest.fixture
def place(tmp_path):
    """A folder with an input, whose file would hang whoever opens it, and links to and around it."""
    source = tmp_path / "outer" / "source"
    source.mkdir(parents=True)
    os.mkfifo(source / "model.safetensors")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "outer-link").symlink_to("outer")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


INSIDE = "lies inside the input {place}/outer/source; name a folder elsewhere"
HOLDS = "holds the input {place}/outer/source; name a new folder"

CASES = {
    "file": EXISTS,
    "full": EXISTS,
    "empty": EXISTS,
    "empty/": EXISTS,
    "dangling": EXISTS,
    "fifo": EXISTS,
    ".": HOLDS,
    "outer": HOLDS,
    "outer-link": HOLDS,
    "outer/source/..": HOLDS,
    "link/..": HOLDS,
    "outer/source": INPUT,
    "outer/source/": INPUT,
    "outer/source/.": INPUT,
    "outer/../outer/source": INPUT,
    "outer-link/source": INPUT,
    "link": INPUT,
    "outer/source/int8": INSIDE,
    "outer/source/deep/er/int8": INSIDE,
    "outer/source/model.safetensors": INSIDE,
    "outer/source/model.safetensors/int8": INSIDE,
    "link/int8": INSIDE,
    "outer-link/source/int8": INSIDE,
    "empty/../link/int8": INSIDE,
    "dangling/int8": NO_PARENT,
    "missing/int8": NO_PARENT,
    "missing/../int8": NO_PARENT,
    "file/int8": NO_PARENT,
    "fifo/int8": NO_PARENT,
    "y" * 256: "the name is longer than 255 bytes",
    "ü" * 128: "the name is longer than 255 bytes",
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name[:40])
def test_refused(place, name):
    source, before = place / "outer" / "source", (sorted(place.rglob("*")), checksums(place / "full"))
    with not_hanging(), pytest.raises(OutputRefusedError) as caught:
        check_output(source, place / name)
    assert str(caught.value) == f"{place / name}: {CASES[name].format(place=place)}"
    assert caught.value.exit_code == 4
    assert (sorted(place.rglob("*")), checksums(place / "full")) == before


@pytest.mark.parametrize("name", ["loop", "loop/int8"])
def test_links_in_a_circle(place, name):
    with pytest.raises(OutputRefusedError):
        check_output(place / "outer" / "source", place / name)


FINE = ["int8", "outer/int8", "outer-link/int8", "outer/source-int8", "empty/int8", "link/../int8"]


@pytest.mark.parametrize("name", [*FINE, "y" * 255, "ü" * 127, b"\xff\xfe", "\x1b[31m"], ids=ascii)
def test_not_refused(place, name):
    check_output(place / "outer" / "source", place / os.fsdecode(name))


def test_a_single_file_as_the_input(place):
    source = place / "full" / "file"
    check_output(source, place / "full" / "int8")
    for name, text in {
        "full/file": INPUT,
        "full": "holds the input",
        "full/file/int8": "lies inside",
    }.items():
        with pytest.raises(OutputRefusedError, match=text):
            check_output(source, place / name)


def test_without_an_input_on_this_machine(place):
    check_output(None, place / "int8")
    with pytest.raises(OutputRefusedError, match=EXISTS):
        check_output(None, place / "full")


def test_an_input_that_is_reached_by_a_name_it_does_not_have(place, monkeypatch):
    """Bind mounts, and file systems that ignore case: two names, one folder."""
    source, twin = place / "outer" / "source", place / "outer" / "SOURCE"
    real = os.path.samefile
    folded = lambda path: str(path).replace("SOURCE", "source")  # noqa: E731
    monkeypatch.setattr(os.path, "samefile", lambda one, other: real(folded(one), folded(other)))
    with pytest.raises(OutputRefusedError, match="is the input itself"):
        check_output(source, twin)
    with pytest.raises(OutputRefusedError, match="lies inside the input"):
        check_output(source, twin / "int8")


def test_a_parent_that_is_not_writable(place, monkeypatch):
    """Asked of the system through os.access, as root may write everywhere."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    with pytest.raises(OutputRefusedError, match="int8: its parent folder is not writable"):
        check_output(place / "outer" / "source", place / "int8")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("mode", [0o555, 0o666, 0o444])
def test_a_parent_that_another_user_may_not_write(place, mode):
    place.chmod(0o755)
    (place / "empty").chmod(mode)
    pid = os.fork()
    if pid == 0:
        os.chdir(place)  # the folders above are closed to others
        os.setgid(65534)
        os.setuid(65534)
        try:
            check_output(None, Path("empty", "int8"))
        except OutputRefusedError as error:
            os._exit(4 if str(error) == "empty/int8: its parent folder is not writable" else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4


def test_control_characters_are_escaped(place):
    (place / "evil\x1b[31m").mkdir()
    with pytest.raises(OutputRefusedError) as caught:
        check_output(None, place / "evil\x1b[31m")
    assert str(caught.value) == f"{place}/evil\\x1b[31m: {EXISTS}"


def test_a_nul_byte(place):
    with pytest.raises(OutputRefusedError, match=r"a\\x00b: cannot be resolved: "):
        check_output(None, place / "a\0b")
