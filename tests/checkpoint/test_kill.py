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


class Moments:
    """Random moments in a run; how long one takes is corrected as the machine gets more or less to do."""

    def __init__(self, trials, seed):
        started = time.monotonic()
        trials.run()
        self._length = time.monotonic() - started
        self._random = random.Random(seed)
        trials.clear()

    def choose(self):
        return self._random.uniform(0, self._length)

    def learn(self, came_too_late):
        self._length *= 0.8 if came_too_late else 1.05


def end_at(trials, delay, *signals):
    """Start a run, send it the signals after a while, and return how it ended."""
    pid = trials.start()
    time.sleep(delay)
    for number in signals:
        os.kill(pid, number)
    return pid, trials.zygote.wait(pid)


def check_what_follows(trials, stages):
    """The next run tells what a killed one left, and that after it removes it."""
    following = trials.run()
    assert following.code == 0, following.err
    assert STAGE.findall(following.text) == stages
    assert trials.found() == (True, stages)
    trials.clear_output()
    last = trials.run("--clean")
    assert STAGE.findall(last.text) == stages
    assert ("removed" in last.text) == bool(stages)
    assert trials.found() == (True, [])


@pytest.mark.parametrize("times", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments(trials, times):
    moments, left = Moments(trials, times), 0
    for _ in range(times):
        pid, ended = end_at(trials, moments.choose(), signal.SIGKILL)
        written, stages = trials.found()
        assert ended.code == -signal.SIGKILL or (ended.code == 0 and written)
        assert stages in ([], [f".out.w8a16-{pid}.partial"])
        assert not (written and stages)
        if not written:
            check_what_follows(trials, stages)
        moments.learn(came_too_late=ended.code == 0)
        left += len(stages)
        trials.clear()
    assert left, "every kill came before the work or after it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("times", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("repeated", [1, 3], ids=["once", "three times"])
def test_interrupted_at_random_moments(trials, number, times, repeated):
    moments, codes = Moments(trials, times), []
    for _ in range(times):
        _, ended = end_at(trials, moments.choose(), *[number] * repeated)
        written, stages = trials.found()
        assert stages == []
        assert ended.code == 128 + number or (ended.code == 0 and written), ended.err
        moments.learn(came_too_late=ended.code == 0)
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
