"""The real process, disturbed from outside at each of its system calls: failures, signals, SIGKILL."""

import itertools
import signal

import pytest

from support.tracing import can_trace, disturbed
from support.writers import WRITERS, Trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_trace(), reason="needs strace, and leave to trace"),
]

CALLS = {
    "open": ["openat"],
    "read": ["read", "pread64", "preadv", "preadv2"],
    "write": ["write", "pwrite64"],
    "truncate": ["ftruncate", "fallocate"],
    "fsync": ["fsync", "fdatasync"],
    "close": ["close"],
    "mkdir": ["mkdir", "mkdirat"],
    "rename": ["rename", "renameat", "renameat2"],
    "unlink": ["unlink", "unlinkat", "rmdir"],
    "stat": ["stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat"],
    "statfs": ["statfs", "fstatfs"],
    "list": ["getdents64"],
    "flock": ["flock"],
}
NOT_IN_A_GOOD_RUN = {"unlink", "truncate"}
FATAL = {"write", "fsync", "rename", "statfs"}
# A source whose state cannot be asked counts as missing.
CODES = dict.fromkeys(CALLS, (0, 4, 5)) | dict.fromkeys(FATAL, (5,)) | {"stat": (0, 3, 4, 5)}


@pytest.fixture(scope="module", params=WRITERS, ids=lambda writer: writer.name)
def trials(request, tmp_path_factory):
    trials = Trials(request.param, tmp_path_factory.mktemp("trials"))
    yield trials
    trials.zygote.close()


@pytest.fixture(autouse=True)
def _cleared(trials):
    yield
    trials.clear()


def each(trials, kind, what, later=""):
    """One disturbed run after the other, for each call of this kind that a run makes.

    With `later="+"` every call after that one is disturbed as well.
    """
    for name in CALLS[kind]:
        for at in itertools.count(1):  # strace counts for each name, in each thread
            run = disturbed(trials, name, what, f"{at}{later}")
            if not run.happened:
                trials.clear()
                break
            yield run
            trials.clear()


@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("kind", CALLS)
def test_each_call_fails_once(trials, kind, code):
    count = 0
    for run in each(trials, kind, f"error={code}"):
        written, stages = trials.found()
        assert run.ended.code in CODES[kind], run
        assert written or run.ended.code
        assert run.ended.code == 0 or len(run.ended.err.splitlines()) == 1, run
        assert all(stage in run.ended.err for stage in stages), run
        count += 1
    assert count or kind in NOT_IN_A_GOOD_RUN, "nothing was tested"


@pytest.mark.parametrize("name", ["KILL", "INT", "TERM", "INT again and again"])
@pytest.mark.parametrize("kind", CALLS)
def test_each_call_is_a_moment_to_die(trials, kind, name):
    name, _, again = name.partition(" ")
    number = signal.Signals[f"SIG{name}"]
    count = 0
    for run in each(trials, kind, f"signal={name}", "+" * bool(again)):
        written, stages = trials.found()
        code = run.ended.code
        assert code == (-number if name == "KILL" else 128 + number) or (code == 0 and written), run
        assert stages in ([], [f".out.w8a16-{run.pid}.partial"] if name == "KILL" else [])
        count += 1
    assert count or kind in NOT_IN_A_GOOD_RUN, "nothing was tested"
