"""Every call to the system fails once: a clean error, no half output, nothing left, the input as it was."""

import errno
import hashlib
import os
import shutil

import pytest

from support import stand_in
from support.faults import fault
from support.files import checksums
from w8a16.checkpoint.output.stage import staged
from w8a16.errors import OutputRefusedError, ResourceError, W8A16Warning

pytestmark = pytest.mark.skipif(not hasattr(os, "pwrite"), reason="the faults are in calls of POSIX systems")

CODES = pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)

# Of these, a failure must never go unnoticed.
FATAL = ["preadv", "pwrite", "fsync", "mkdir", "rename", "statvfs"]
# Of these, some may: closing a file that was read, asking for a lock that only helps to refuse early.
OTHERS = ["open", "close", "fstat", "stat", "lstat", "scandir", "listdir"]


@pytest.fixture
def source(tmp_path):
    return stand_in.make_source(tmp_path / "source")


@pytest.fixture
def target(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "out"


def turned_over(source):
    """What a complete output holds, worked out without the code under test."""
    contents = {}
    for file in sorted(source.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            content = content.translate(stand_in.TURNED) if file.suffix == ".bin" else content
            contents[str(file.relative_to(source))] = hashlib.sha256(content).hexdigest()
    return contents


def calls_of(name, source, target):
    """How often a good run calls it."""
    with fault(name) as counted:
        stand_in.write(source, target, threads=1)
    shutil.rmtree(target)
    return counted.calls


@CODES
@pytest.mark.parametrize("name", FATAL + OTHERS)
def test_each_call_fails_once(source, target, name, code):
    complete = turned_over(source)
    calls = calls_of(name, source, target)
    assert calls > 0, "nothing is tested"
    for at in range(1, calls + 1):
        error = None
        with fault(name, at, code) as made:
            try:
                stand_in.write(source, target, threads=1)
            except OSError as caught:
                error = caught
        assert made.callers, f"call {at} of {calls} was not made"
        assert turned_over(source) == complete
        if name in FATAL or made.callers == ["finish"]:
            assert isinstance(error, ResourceError), f"call {at} of {calls}, made by {made.callers}"
            assert os.strerror(code) in str(error)
        left = list(target.parent.iterdir())
        if left:
            assert left == [target]
            assert checksums(target) == complete
            shutil.rmtree(target)
        else:
            assert error is not None


def test_a_sync_that_fails_after_the_rename_is_told_as_that(source, target):
    with fault("fsync", calls_of("fsync", source, target)), pytest.raises(ResourceError) as caught:
        stand_in.write(source, target, threads=1)
    assert str(caught.value) == (
        f"{target.parent}: Input/output error; {target} is complete, but may be gone after a power failure"
    )
    assert checksums(target) == turned_over(source)


class Failure(Exception):
    """What goes wrong in the block, to see the removal."""


def broken_off(target, error):
    with staged(target) as stage:
        (stage.path / "inner").mkdir()
        (stage.path / "inner" / "file").write_text("half")
        raise error


@pytest.mark.parametrize("name", ["open", "scandir", "unlink", "rmdir", "close", "lstat"])
def test_each_call_of_the_removal_fails_once(target, name):
    """It is tried once more, and the error that led to it is the one that is told."""
    at = 0
    while True:
        at += 1
        with fault(name, at) as made, pytest.raises((Failure, ResourceError)) as caught:
            broken_off(target, Failure())
        assert list(target.parent.iterdir()) == []
        if not made.callers:
            break
    assert at > 1, "nothing was tested"
    assert isinstance(caught.value, Failure)


@pytest.mark.parametrize("name", ["unlink", "rmdir"])
def test_a_stage_that_cannot_be_removed_is_named(target, name):
    with fault(name, 1, lasting=True), pytest.raises(ResourceError) as caught:
        broken_off(target, ResourceError("x: no space"))
    (stage,) = target.parent.iterdir()
    assert str(caught.value) == f"x: no space; {stage} could not be removed (Input/output error): remove it"


def test_a_foreign_error_goes_on_with_a_warning_about_the_stage(target):
    warned = pytest.warns(W8A16Warning, match="could not be removed")
    with fault("unlink", 1, lasting=True), warned, pytest.raises(Failure):
        broken_off(target, Failure())


def test_a_leftover_that_cannot_be_removed_is_named(target):
    stale = target.with_name(".out.w8a16-1.partial")
    stale.mkdir()
    (stale / "file").touch()
    with fault("unlink", 1), pytest.raises(ResourceError) as caught, staged(target, clean=True):
        pass
    assert str(caught.value) == f"{stale}: Input/output error"
    assert list(target.parent.iterdir()) == [stale]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_system_without_the_exclusive_rename(source, target, code):
    with fault("rename", 1, code) as made:
        stand_in.write(source, target)
    assert made.callers
    assert checksums(target) == turned_over(source)


def appear(target, kind):
    """Somebody else takes the name."""
    if kind == "file":
        target.write_text("theirs")
    elif kind == "link":
        target.symlink_to(".")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
        if kind == "full folder":
            (target / "file").write_text("theirs")


def outrun(target, kind, then=lambda: None):
    """Another takes the name while we write; return what is said about it."""

    def write():
        with staged(target) as stage:
            (stage.path / "file").write_text("ours")
            appear(target, kind)
            then()

    with pytest.raises(OutputRefusedError) as caught:
        write()
    assert list(target.parent.iterdir()) == [target]
    if kind in ("file", "full folder"):
        assert (target if kind == "file" else target / "file").read_text() == "theirs"
    return str(caught.value)


@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive rename", "plain rename"])
@pytest.mark.parametrize("kind", ["file", "full folder", "empty folder", "link", "dangling link"])
def test_what_appears_meanwhile_is_not_replaced(target, kind, exclusive):
    with fault("rename", 0 if exclusive else 1, errno.ENOSYS):
        assert outrun(target, kind) == f"{target}: has been made by another run meanwhile"


@pytest.mark.parametrize("kind", ["file", "full folder", "link", "dangling link"])
def test_a_plain_rename_replaces_nothing_but_an_empty_folder(target, kind, monkeypatch):
    """Also what appears between the look and the rename, when the look sees nothing."""
    with fault("rename", 1, errno.ENOSYS):
        real = os.path.lexists
        blind = lambda path: path != target and real(path)  # noqa: E731
        outrun(target, kind, lambda: monkeypatch.setattr(os.path, "lexists", blind))


def test_too_little_space_is_found_before_anything_is_made(target):
    free = shutil.disk_usage(target.parent).free
    refused = pytest.raises(ResourceError, match=rf"^{target}: need {10**18} bytes, have \d+$")
    with refused, staged(target, need_bytes=10**18):
        raise AssertionError("it began")
    assert list(target.parent.iterdir()) == []
    with staged(target, need_bytes=free // 2):
        pass


def test_a_short_write_is_continued(source, target, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: real(fd, view[:1000], offset))
    stand_in.write(source, target)
    assert checksums(target) == turned_over(source)
