"""What other runs left beside a target, or do there: told, and left alone."""

import os
import shutil
import signal

import pytest

from w8a16.checkpoint.output import locks
from w8a16.checkpoint.output.stage import staged
from w8a16.errors import OutputRefusedError, ResourceError


@pytest.fixture
def target(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "out"


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def leave_stage(target, size=10, age=0):
    """What a run leaves that is killed in the middle; a forked child is a run of its own."""
    pid = os.fork()
    if pid == 0:
        with staged(target) as stage:
            (stage.path / "inner").mkdir()
            file = stage.path / "inner" / "file"
            file.write_bytes(bytes(size))
            for path in (file, file.parent, stage.path):
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return f".out.w8a16-{pid}.partial"


@pytest.mark.parametrize("clean", [False, True])
def test_a_leftover_is_told_and_removed_on_request(target, clean):
    left = leave_stage(target, size=1234, age=3600)
    assert names(target) == [left]
    told = []
    with staged(target, clean=clean, report=told.append):
        assert (left in names(target)) == (not clean)
    assert names(target) == ([left] if not clean else []) + ["out"]
    (leftover,) = told
    assert leftover.path == target.with_name(left)
    assert leftover.size == 1234
    assert leftover.seconds == pytest.approx(3600, abs=600)
    assert leftover.abandoned
    assert leftover.removed == clean


def test_leftovers_are_told_also_when_the_output_is_refused(target):
    left = leave_stage(target)
    target.mkdir()
    told = []
    with pytest.raises(OutputRefusedError, match="out: exists already"), staged(target, report=told.append):
        pass
    assert [leftover.path.name for leftover in told] == [left]


def test_removing_leftovers_makes_space(target, monkeypatch):
    left = leave_stage(target)
    usage = type(shutil.disk_usage("/"))
    free = lambda path: usage(100, 50, 7 if left in names(target) else 50)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    with pytest.raises(ResourceError, match="out: need 50 bytes, have 7"), staged(target, need_bytes=50):
        pass
    with staged(target, need_bytes=50, clean=True):
        pass
    assert names(target) == ["out"]


def test_what_only_looks_like_a_leftover_is_left_alone(target):
    others = [
        ".out.w8a16-.partial",
        ".out.w8a16-12.partial.txt",
        ".out2.w8a16-12.partial",
        ".out.w8a16-x.partial",
        "out.w8a16-12.partial",
    ]
    for name in others:
        target.with_name(name).mkdir()
    told = []
    with staged(target, clean=True, report=told.append):
        pass
    assert told == []
    assert names(target) == sorted([*others, "out"])


def test_a_dead_run_with_our_process_id(target):
    mine = target.with_name(f".out.w8a16-{os.getpid()}.partial")
    mine.mkdir()
    told = []
    with staged(target, report=told.append) as stage:
        assert stage.path.name == f".out.w8a16-{os.getpid()}-2.partial"
    assert [leftover.path for leftover in told] == [mine]
    told.clear()
    shutil.rmtree(target)
    with staged(target, clean=True, report=told.append):
        pass
    assert names(target) == ["out"]


def test_a_second_writer_is_refused_at_once_and_the_first_wins(target):
    with staged(target) as stage:
        before = names(target)
        with pytest.raises(OutputRefusedError) as caught, staged(target, clean=True):
            raise AssertionError("it began")
        assert (
            str(caught.value)
            == f"{target}: process {os.getpid()} is writing it; wait, or name another folder"
        )
        assert names(target) == before
        (stage.path / "file").write_text("ours")
    assert (target / "file").read_text() == "ours"


def test_after_a_failure_the_next_one_may(target):
    with pytest.raises(ValueError), staged(target):
        raise ValueError
    with staged(target):
        pass
    assert names(target) == ["out"]


def test_two_targets_at_once(target):
    with staged(target), staged(target.with_name("other")):
        pass
    assert names(target) == ["other", "out"]


def without_locks(monkeypatch):
    def unsupported(fd, operation):
        raise OSError(9, "Bad file descriptor")  # what NFS answers for a folder

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)


def test_without_locks_one_of_two_writers_wins_at_the_rename(target, monkeypatch):
    without_locks(monkeypatch)
    told = []

    def write_both():
        with staged(target), staged(target, report=told.append) as second:
            (second.path / "file").write_text("second")

    with pytest.raises(OutputRefusedError, match="out: has been made by another run meanwhile"):
        write_both()
    assert [leftover.abandoned for leftover in told] == [False]
    assert names(target) == ["out"]
    assert (target / "file").read_text() == "second"


def test_without_locks_nothing_is_removed(target, monkeypatch):
    """It may be at work on another machine."""
    left = leave_stage(target)
    without_locks(monkeypatch)
    told = []
    with staged(target, clean=True, report=told.append):
        pass
    assert names(target) == [left, "out"]
    assert [(leftover.abandoned, leftover.removed) for leftover in told] == [(False, False)]


def test_a_parent_that_somebody_locks_for_long(target, monkeypatch):
    """`flock FOLDER w8a16 quantize ...` in a shell: it must not wait for its own end."""
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    left = leave_stage(target)
    held = locks.lock_folder(target.parent)
    with staged(target, clean=True):
        pass
    os.close(held)
    assert names(target) == [left, "out"]  # whoever comes without the lock removes nothing


@pytest.mark.parametrize(
    "name",
    ["y" * 255, "ü" * 127, b"\xff\xfe" * 100, b"\xff" * 255, "a\nb\x1b[31m", " ", "-rf", "*?[x]", "\u202e"],
)
def test_names_of_every_kind(target, name):
    target = target.with_name(os.fsdecode(name))
    with staged(target) as stage:
        assert len(os.fsencode(stage.path.name)) <= 255
        with pytest.raises(OutputRefusedError), staged(target):
            pass
    assert list(target.parent.iterdir()) == [target]


def test_long_names_that_differ_at_the_end_are_two_targets(target):
    one, other = (target.with_name("y" * 254 + end) for end in "ab")
    with staged(one), staged(other):
        pass
    assert sorted(target.parent.iterdir()) == [one, other]


def test_a_target_relative_to_the_folder_one_is_in(target, monkeypatch):
    monkeypatch.chdir(target.parent)
    with staged(type(target)("out")) as stage:
        (stage.path / "file").touch()
    assert names(target) == ["out"]
