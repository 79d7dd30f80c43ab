"""The floor under a layer's time."""

import pytest

from w8a16.kernels import cpu
from w8a16.study import Limits, limits, sample_limits

LIMITS = Limits(bandwidth=10e9, rate=100e9)


@pytest.mark.parametrize(
    "weight_bytes, operations, floor, binding",
    [(10e9, 10e9, 1.0, "memory"), (10e9, 200e9, 2.0, "compute"), (10e9, 100e9, 1.0, "memory")],
)
def test_floor(weight_bytes, operations, floor, binding):
    assert LIMITS.floor(weight_bytes, operations) == floor
    assert LIMITS.binding(weight_bytes, operations) == binding


@pytest.mark.parametrize("unknown", [Limits(), Limits(bandwidth=1e9), Limits(rate=1e9)])
def test_no_floor_without_both_limits(unknown):
    assert unknown.floor(1, 1) is None
    assert unknown.binding(1, 1) is None


def test_the_best_sample_counts():
    assert Limits(1, 5).better_of(Limits(2, 3)) == Limits(2, 5)
    assert Limits(1, 5).better_of(Limits()) == Limits(1, 5)
    assert Limits().better_of(Limits(1, 5)) == Limits(1, 5)
    assert Limits().better_of(Limits()) == Limits()


def test_samples_of_this_machine():
    found = sample_limits()
    assert found.bandwidth is not None
    assert 1e7 < found.bandwidth < 1e13
    assert (found.rate is None) == (cpu.problem() is not None)
    assert found.rate is None or 1e7 < found.rate < 1e15


def test_without_native_kernels(monkeypatch):
    monkeypatch.setattr(limits.cpu, "problem", lambda: "not built")
    monkeypatch.setattr(limits, "_summing_bandwidth", lambda megabytes: 5e9)
    assert sample_limits() == Limits(bandwidth=5e9)


def test_the_better_reader_counts(monkeypatch):
    monkeypatch.setattr(limits.cpu, "problem", lambda: None)
    monkeypatch.setattr(limits.cpu, "multiply_add_rate", lambda rounds: 7.0)
    monkeypatch.setattr(limits, "_summing_bandwidth", lambda megabytes: 5.0)
    for other, best in ((4.0, 5.0), (6.0, 6.0)):
        monkeypatch.setattr(limits.cpu, "read_bandwidth", lambda megabytes, rounds, other=other: other)
        assert sample_limits() == Limits(bandwidth=best, rate=7.0)
