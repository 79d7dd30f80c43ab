"""The clock: who is called when and with what. No time is asserted."""

import itertools

import pytest

from w8a16.study import Timing, time_in_turn, timing
from w8a16.study.timing import OtherPrograms, available_memory, copies_beyond_cache, last_level_cache


@pytest.fixture
def fake_clock(monkeypatch):
    """A clock that candidates move; `clock.spend(seconds)`."""

    class Clock:
        now = 0.0

        def spend(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_median_and_best():
    result = Timing((3.0, 1.0, 10.0))
    assert (result.median, result.best) == (3.0, 1.0)
    assert Timing((1.0, 2.0)).median == 1.5


def test_in_turn_and_in_alternating_order(fake_clock):
    calls = []

    def candidate(name):
        def function(call):
            calls.append(name)
            fake_clock.spend(1)

        return function

    result = time_in_turn({"a": candidate("a"), "b": candidate("b")}, seconds=0, least_rounds=3)
    assert calls == [*"ab", *"ab", *"ba", *"ab"]  # one call each to warm up
    assert {name: len(t.seconds) for name, t in result.items()} == {"a": 3, "b": 3}


def test_seconds_a_call(fake_clock):
    slow = time_in_turn({"slow": lambda call: fake_clock.spend(2)}, seconds=0)
    assert slow["slow"].seconds == (2, 2, 2)
    quick = time_in_turn({"quick": lambda call: fake_clock.spend(10e-6)}, seconds=0)
    assert quick["quick"].seconds == pytest.approx([10e-6] * 3)


def test_quick_functions_are_called_several_times_a_sample(fake_clock):
    calls = []

    def quick(call):
        calls.append(call)
        fake_clock.spend(10e-6)

    time_in_turn({"quick": quick}, seconds=0)
    assert calls == list(range(2 + 3 * 10))  # every call has its own number, so that copies rotate


def test_runs_until_the_time_is_over(fake_clock):
    result = time_in_turn({"a": lambda call: fake_clock.spend(1)}, seconds=10)
    assert len(result["a"].seconds) == 9  # and one to warm up


def test_a_function_that_takes_no_time(fake_clock):
    assert time_in_turn({"a": lambda call: None}, seconds=0)["a"].seconds == (0, 0, 0)


def test_copies_outgrow_the_cache(monkeypatch):
    monkeypatch.setattr(timing, "last_level_cache", lambda: 1000)
    assert copies_beyond_cache(10) == 400
    assert copies_beyond_cache(999) == 5
    assert copies_beyond_cache(1) == copies_beyond_cache(0) == 1000
    assert copies_beyond_cache(4000) == 1
    assert copies_beyond_cache(1 << 40) == 1
    monkeypatch.setattr(timing, "last_level_cache", lambda: 1 << 30)
    assert copies_beyond_cache(1 << 30) == 2  # not more than 2 GiB


def test_last_level_cache(monkeypatch, tmp_path):
    assert last_level_cache() >= 1 << 15
    for index, size in enumerate(["32K", "1M", "512K", "77"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    monkeypatch.setattr(timing, "Path", lambda path: tmp_path)
    assert last_level_cache() == 1 << 20
    monkeypatch.setattr(timing, "Path", lambda path: tmp_path / "none")
    assert last_level_cache() == 32 << 20


def test_available_memory():
    available = available_memory()
    assert available is None or available > 1 << 20


def test_other_programs(monkeypatch):
    """1.5 processors of others for ten seconds, whatever this process uses itself."""
    states = itertools.cycle([(100.0, 7.0), (110.0, 22.0)])
    monkeypatch.setattr(OtherPrograms, "_now", staticmethod(lambda: next(states)))
    assert OtherPrograms().processors() == 1.5


def test_other_programs_here():
    others = OtherPrograms()
    sum(range(2_000_000))  # our own work
    busy = others.processors()
    assert busy is None or busy >= 0


def test_other_programs_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(OtherPrograms, "_now", staticmethod(lambda: None))
    assert OtherPrograms().processors() is None


def test_another_clock():
    """Samples are what the given clock says; how long to go on is a matter of real time."""
    ticks = iter(range(10**6))
    timing = time_in_turn({"a": lambda call: None}, 0.0, least_rounds=5, clock=lambda: float(next(ticks)))[
        "a"
    ]
    assert timing.seconds == (1.0,) * 5
