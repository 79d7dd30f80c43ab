"""Files that change while they are read, disks that fail, interrupts: one clean error, and nothing leaks."""

import errno
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from support.faults import fault
from support.files import not_hanging
from support.streaming import in_turn, skeleton_of, stored_state, write_checkpoint
from w8a16.checkpoint.streaming import plan_checkpoint
from w8a16.errors import ResourceError

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 300), nn.Linear(300, 40), nn.ConvTranspose1d(10, 8, 4))


@pytest.fixture
def shards(tmp_path, cut_small):
    cut_small(512)
    state = stored_state(build())
    (tmp_path / "int8").mkdir()
    return write_checkpoint(state, tmp_path / "float", in_turn(state, 3))


@pytest.fixture
def work(shards):
    return plan_checkpoint(shards, skeleton_of(build()))


@contextmanager
def nothing_leaks():
    """As many descriptors and threads as before."""
    before = sorted(os.listdir("/proc/self/fd")), set(threading.enumerate())
    with not_hanging():
        yield
    assert (sorted(os.listdir("/proc/self/fd")), set(threading.enumerate())) == before


class Between:
    """Called in the middle of a run, between two reads of any thread: after `at` of them."""

    def __init__(self, monkeypatch, at, action):
        self._at, self._action, self._real = at, action, os.preadv
        self._lock, self.calls = threading.Lock(), 0
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, *arguments):
        with self._lock:
            self.calls += 1
            if self.calls == self._at:
                self._action()
        return self._real(*arguments)


@needs_proc
@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_leaks_when_all_goes_well(work, threads, tmp_path):
    with nothing_leaks():
        work.run(tmp_path / "int8", threads=threads)


@needs_proc
@pytest.mark.parametrize("how", ["written", "cut", "exchanged", "removed"])
def test_a_file_that_is_another_one_after_planning(work, shards, how, tmp_path):
    path = shards.headers[1].path
    if how == "exchanged":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    elif how == "removed":
        path.unlink()
    elif how == "cut":
        os.truncate(path, path.stat().st_size - 1)
    else:
        with path.open("r+b") as file:
            file.write(b"\x00")
    with nothing_leaks(), pytest.raises(ResourceError) as caught:
        work.run(tmp_path / "int8", threads=2)
    why = "no such file" if how == "removed" else "was changed or exchanged after its header was read"
    assert str(caught.value) == f"{path}: {why}"


@needs_proc
@pytest.mark.parametrize("at", [5, 20, 60])
def test_a_file_that_is_cut_while_it_is_read(work, shards, at, tmp_path, monkeypatch):
    def cut():
        for header in shards.headers:
            os.truncate(header.path, 100)

    between = Between(monkeypatch, at, cut)
    with nothing_leaks(), pytest.raises(ResourceError) as caught:
        work.run(tmp_path / "int8", threads=2)
    assert "changed" in str(caught.value)
    assert between.calls >= at


@needs_proc
def test_a_file_that_is_written_to_while_it_is_read(work, shards, tmp_path, monkeypatch):
    """Half of the tensor would be old and half of it new, and the checksums would be right."""
    path = shards.headers[0].path

    def write():
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\x00\x00\x80\x3f")
            os.utime(file.fileno(), ns=(1, 1))  # the clock of the file system may be too coarse to show it

    Between(monkeypatch, 3, write)
    with nothing_leaks(), pytest.raises(ResourceError) as caught:
        work.run(tmp_path / "int8", threads=1)
    assert str(caught.value) == f"{path}: was changed while it was read"


@needs_proc
def test_a_file_that_is_exchanged_while_it_is_read(work, shards, tmp_path, monkeypatch):
    """What was opened stays as it was; what was not yet opened is another file."""
    path = shards.headers[2].path

    def exchange():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)

    Between(monkeypatch, 3, exchange)
    with nothing_leaks(), pytest.raises(ResourceError) as caught:
        work.run(tmp_path / "int8", threads=1)
    assert str(caught.value) == f"{path}: was changed or exchanged after its header was read"


@needs_proc
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "call, at, lasting, code",
    [
        ("pwrite", 1, True, errno.ENOSPC),
        ("pwrite", 20, True, errno.ENOSPC),
        ("pwrite", 20, False, errno.EIO),
        ("preadv", 10, False, errno.EIO),
        ("fsync", 1, False, errno.EIO),
        ("fsync", 3, False, errno.ENOSPC),
        ("open", 2, False, errno.EMFILE),
    ],
)
def test_an_error_of_the_disk_stops_all(work, call, at, lasting, code, threads, tmp_path):
    failing = fault(call, at, code, lasting=lasting)
    with nothing_leaks(), failing, pytest.raises(ResourceError) as caught:
        work.run(tmp_path / "int8", threads=threads)
    assert os.strerror(code) in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@needs_proc
@pytest.mark.parametrize("call", ["pwrite", "fsync", "close", "preadv"])
def test_no_failing_call_is_swallowed(shards, call, tmp_path):
    """But for closing a file that was only read, which loses nothing."""

    def attempt(name, at):
        (tmp_path / name).mkdir()
        work = plan_checkpoint(shards, skeleton_of(build()))
        with nothing_leaks(), fault(call, at) as made:
            try:
                work.run(tmp_path / name, threads=1)
            except ResourceError as error:
                return made, str(error)
        return made, None

    counted, error = attempt("counted", 0)
    assert error is None
    for at in range(1, counted.calls + 1, max(1, counted.calls // 12)):
        made, error = attempt(str(at), at)
        assert error is not None or made.callers == ["discard"], at
        assert error is None or os.strerror(errno.EIO) in error


@needs_proc
@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_any_other_error_of_a_thread_is_raised(work, error, tmp_path, monkeypatch):
    def fail():
        raise error("by a thread")

    between = Between(monkeypatch, 7, fail)
    with nothing_leaks(), pytest.raises(error, match="by a thread"):
        work.run(tmp_path / "int8", threads=3)
    assert between.calls < 20, "the other threads went on"


@needs_proc
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("interrupts", [1, 3])
def test_an_interrupt_stops_all_threads_before_it_is_raised(work, interrupts, tmp_path, monkeypatch):
    """Also where it is repeated while the threads finish their blocks."""

    def interrupt():
        for _ in range(interrupts):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    between = Between(monkeypatch, 10, interrupt)
    with nothing_leaks(), pytest.raises(KeyboardInterrupt):
        work.run(tmp_path / "int8", threads=3)
    calls = between.calls
    time.sleep(0.1)
    assert between.calls == calls < 30


@needs_proc
def test_an_error_of_the_progress_stops_all_threads(work, tmp_path):
    def broken(done, total):
        raise BrokenPipeError

    with nothing_leaks(), pytest.raises(BrokenPipeError):
        work.run(tmp_path / "int8", threads=3, progress=broken)


@needs_proc
def test_few_files_are_open_at_once(tmp_path):
    """A source is closed after its last block, an output when it is complete."""
    model = nn.Sequential(*[nn.Linear(8, 16, bias=False) for _ in range(60)])
    state = stored_state(model)
    shards = write_checkpoint(state, tmp_path / "float", in_turn(state, 60))
    work = plan_checkpoint(shards, skeleton_of(model))
    (tmp_path / "int8").mkdir()
    before, most, real = len(os.listdir("/proc/self/fd")), [], os.fsync

    def fsync(fd):
        most.append(len(os.listdir("/proc/self/fd")))
        real(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        work.run(tmp_path / "int8", threads=2)
    assert len(most) == 61
    assert max(most) - before <= 8
