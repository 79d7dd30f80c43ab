"""What blocks found out, put together: the order in which they end does not matter."""

import math
import random
import zlib

import pytest

from w8a16.checkpoint.streaming.results import Range, RowErrors, weight_figures, whole_crc


def ranges_of(data, ends):
    starts = [0, *ends[:-1]]
    return [Range(a, b - a, zlib.crc32(data[a:b])) for a, b in zip(starts, ends, strict=True)]


def test_the_checksum_of_ranges_in_any_order():
    data = random.Random(0).randbytes(1000)
    ranges = ranges_of(data, [1, 1, 1, 7, 300, 300, 999, 1000])  # some of them are empty
    for seed in range(20):
        shuffled = random.Random(seed).sample(ranges, len(ranges))
        assert whole_crc(shuffled, 1000) == zlib.crc32(data)
    assert whole_crc([], 0) == 0


@pytest.mark.parametrize("size", [999, 1001])
def test_ranges_that_are_not_everything(size):
    with pytest.raises(AssertionError):
        whole_crc(ranges_of(bytes(1000), [300, 1000]), size)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_range_that_is_missing_or_there_twice(missing):
    ranges = ranges_of(bytes(1000), [300, 700, 1000])
    with pytest.raises(AssertionError):
        whole_crc(ranges[:missing] + ranges[missing + 1 :], 1000)
    with pytest.raises(AssertionError):
        whole_crc([*ranges, ranges[missing]], 1000)


def test_figures_are_added_up_in_the_order_of_the_rows():
    """Signal and noise are nearly equal here, so that the last bit of a sum is seen."""
    draw = random.Random(0)
    parts = [RowErrors(4 * i, 0, 0, draw.random(), draw.random(), draw.random()) for i in range(7)]
    signal, noise = (sum(getattr(part, name) for part in parts) for name in ("signal", "noise"))
    parts.append(RowErrors(28, 0, 0, max(0, noise - signal), max(0, signal - noise), 0.0))
    expected = weight_figures(parts)
    assert expected[1] == max(part.largest for part in parts)
    assert abs(expected[0]) < 1e-12
    found = {weight_figures(draw.sample(parts, len(parts))) for _ in range(500)}
    assert found == {expected}


def test_nothing_lost():
    assert weight_figures([RowErrors(0, 0, 0, 5.0, 0.0, 0.0)]) == (math.inf, 0.0)
    assert weight_figures([RowErrors(0, 0, 0, 100.0, 1.0, 0.9)]) == (20.0, 0.9)
    assert weight_figures([]) == (math.inf, 0.0)
