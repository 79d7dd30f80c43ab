"""A stage becomes the target or vanishes, whatever happens meanwhile."""

import atexit
import os
import shutil
import signal
import stat
import sys
import threading

import pytest

from support.files import checksums
from w8a16.checkpoint.output import stage as module
from w8a16.checkpoint.output.stage import Stage, staged
from w8a16.errors import ResourceError


@pytest.fixture
def target(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "out"


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_it_appears_at_the_end_and_is_complete(target):
    with staged(target) as stage:
        assert stage.path.parent == target.parent
        assert names(target) == [f".out.w8a16-{os.getpid()}.partial"]
        (stage.path / "inner").mkdir()
        (stage.path / "inner" / "file").write_text("ours")
        before = checksums(stage.path)
        assert not target.exists()
    assert stage.path == target
    assert names(target) == ["out"]
    assert checksums(target) == before


def test_everything_is_synced_before_the_rename_and_the_parent_after(target, monkeypatch):
    """By the inode: the names change."""
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or real(fd))
    renamed, mkdir = [], os.mkdir
    rename = module.rename_folder
    monkeypatch.setattr(module, "rename_folder", lambda *both: renamed.append(len(synced)) or rename(*both))
    with staged(target) as stage:
        mkdir(stage.path / "inner")
        (stage.path / "inner" / "file").write_text("never synced by its writer")
        (stage.path / "other").touch()
    inode = lambda *parts: target.joinpath(*parts).stat().st_ino  # noqa: E731
    (before,) = renamed
    assert set(synced[:before]) == {inode("inner", "file"), inode("other"), inode("inner"), inode()}
    assert synced.index(inode("inner", "file")) < synced.index(inode("inner")) < synced.index(inode())
    assert synced[before:] == [target.parent.stat().st_ino]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_its_mode_follows_the_umask(target, umask):
    before = os.umask(umask)
    try:
        with staged(target):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize(
    "error", [ValueError(), ResourceError("x"), KeyboardInterrupt(), SystemExit(143), GeneratorExit()]
)
def test_after_any_exception_nothing_is_left_and_it_goes_on(target, error):
    def write():
        with staged(target) as stage:
            (stage.path / "file").touch()
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert names(target) == []


@pytest.mark.parametrize("first", [KeyboardInterrupt(), ResourceError("the first")])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_again_while_it_is_removed(target, monkeypatch, first, second):
    """The removal goes on, and the first error is the one that is told."""
    unlink, sent = os.unlink, []

    def interrupted(*arguments, **options):
        sent.append(os.kill(os.getpid(), second))
        return unlink(*arguments, **options)

    def write():
        with staged(target) as stage:
            for name in ("a", "b", "c"):
                (stage.path / name).touch()
            monkeypatch.setattr(os, "unlink", interrupted)
            raise first

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(type(first)) as caught:
        write()
    assert caught.value is first
    assert len(sent) == 3
    assert names(target) == []
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_interrupted_while_it_is_published(target, monkeypatch):
    """The rename is not cut off from what has to be noted about it: the output stays."""
    rename = module.rename_folder

    def interrupted(*both):
        rename(*both)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module, "rename_folder", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(target) as stage:
        (stage.path / "file").touch()
    assert names(target) == ["out"]
    assert list(checksums(target)) == ["file"]


def test_interrupted_while_it_is_made(target, monkeypatch):
    mkdir = os.mkdir

    def interrupted(*arguments):
        mkdir(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(target):
        raise AssertionError("it began")
    assert names(target) == []


def test_an_interrupt_before_the_removal_leaves_it_to_the_end_of_the_program(target, monkeypatch):
    at_the_end = []
    monkeypatch.setattr(atexit, "register", at_the_end.append)

    def interrupted(stage):
        raise KeyboardInterrupt

    def write():
        with staged(target):
            monkeypatch.setattr(Stage, "_remove", interrupted)
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        write()
    assert len(names(target)) == 1
    at_the_end[0]()
    assert names(target) == []


class InterruptAt:
    """Sends Ctrl-C before the n-th step of the interpreter in `stage.py`."""

    def __init__(self, at):
        self.at, self.steps = at, 0

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.steps += 1
            if self.steps == self.at:
                signal.raise_signal(signal.SIGINT)
        return self


def interrupted_at(target, at, fails):
    """Write, disturbed at one step; return whether it came so far. What the program's end does is done."""
    at_the_end, trace = set(), InterruptAt(at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atexit, "register", at_the_end.add)
        patch.setattr(atexit, "unregister", at_the_end.discard)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with staged(target) as stage:
                (stage.path / "file").write_text("ours")
                if fails:
                    raise ResourceError("no space")
        except (KeyboardInterrupt, ResourceError):
            pass
        finally:
            sys.settrace(before)
    for function in at_the_end:
        function()
    return trace.steps >= at


@pytest.mark.parametrize("fails", [False, True], ids=["a good run", "a failing run"])
def test_interrupted_at_every_step_of_the_interpreter(target, monkeypatch, fails):
    """Neither half an output nor a stage is left, and a complete output is never removed."""
    renamed, rename = [], module.rename_folder
    monkeypatch.setattr(module, "rename_folder", lambda *both: (rename(*both), renamed.append(True)))
    handler, at = signal.getsignal(signal.SIGINT), 0
    while True:
        at += 1
        renamed.clear()
        arrived = interrupted_at(target, at, fails)
        assert names(target) == ["out"] * bool(renamed), f"step {at}"
        assert signal.getsignal(signal.SIGINT) is handler
        if renamed:
            assert (target / "file").read_text() == "ours"
            shutil.rmtree(target)
        if not arrived:
            break
    assert at > 100


def test_in_another_thread(target):
    """Where signals have no handlers to put off."""
    failures = []

    def write():
        try:
            with staged(target) as stage:
                (stage.path / "file").touch()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert failures == []
    assert names(target) == ["out"]


def test_a_forked_child_that_ends_leaves_the_stage_alone(target):
    with staged(target) as stage:
        pid = os.fork()
        if pid == 0:
            stage._remove()
            os._exit(0)
        os.waitpid(pid, 0)
        assert stage.path.is_dir()
