"""Whatever ends a run, and whenever: the output is absent or complete, the input is as it was."""

import os
import random
import signal
import time

import pytest

from support.writers import STAGE, WRITERS, Trials

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials are forked processes")


@pytest.fixture(scope="module", params=WRITERS, ids=lambda writer: writer.name)
def trials(request, tmp_path_factory):
    trials = Trials(request.param, tmp_path_factory.mktemp("trials"))
    yield trials
    trials.zygote.close()


@pytest.fixture(autouse=True)
def _cleared(trials):
    yield
    trials.clear()


@pytest.fixture(scope="module")
def seconds(trials):
    """How long a run takes, to choose moments in it."""
    started = time.monotonic()
    trials.run()
    trials.clear()
    return time.monotonic() - started


def end_at(trials, delay, *signals):
    """Start a run, send it the signals after a while, and return how it ended."""
    pid = trials.start()
    time.sleep(delay)
    for number in signals:
        os.kill(pid, number)
    return pid, trials.zygote.wait(pid)


def killed(trials, delay):
    """Kill a run; let the next one tell what is left, and that after it remove it. Return whether any was."""
    pid, ended = end_at(trials, delay, signal.SIGKILL)
    written, stages = trials.found()
    assert ended.code == -signal.SIGKILL or (ended.code == 0 and written)
    assert stages in ([], [f".out.w8a16-{pid}.partial"])
    assert not (written and stages)
    if not written:
        following = trials.run()
        assert following.code == 0, following.err
        assert STAGE.findall(following.text) == stages
        assert trials.found() == (True, stages)
        trials.clear_output()
        last = trials.run("--clean")
        assert STAGE.findall(last.text) == stages
        assert ("removed" in last.text) == bool(stages)
        assert trials.found() == (True, [])
    trials.clear()
    return bool(stages)


@pytest.mark.parametrize("times", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments(trials, seconds, times):
    moments = random.Random(times)
    left = sum(killed(trials, moments.uniform(0, 1.1 * seconds)) for _ in range(times))
    assert left, "every kill came before the work or after it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("repeated", [1, 3], ids=["once", "three times"])
def test_interrupted_at_random_moments(trials, seconds, number, times, repeated):
    moments = random.Random(times)
    codes = []
    for _ in range(times):
        _, ended = end_at(trials, moments.uniform(0.1 * seconds, seconds), *[number] * repeated)
        written, stages = trials.found()
        assert stages == []
        assert ended.code == 128 + number or (ended.code == 0 and written), ended.err
        codes.append(ended.code)
        trials.clear()
    assert 128 + number in codes


@pytest.mark.parametrize("times", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_eight_at_once(trials, times):
    for _ in range(times):
        pids = [trials.start() for _ in range(8)]
        ended = [trials.zygote.wait(pid) for pid in pids]
        assert sorted(end.code for end in ended) == [0] + [4] * 7
        for end in ended:
            if end.code:
                assert "is writing it" in end.err or "exists already" in end.err
        assert trials.found() == (True, [])
        trials.clear()
