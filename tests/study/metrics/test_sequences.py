"""Edit distance against a second algorithm, and CTC against the letters of the definition."""

import random
from functools import cache

import pytest

from w8a16.errors import ShapeError
from w8a16.study.metrics import ctc_collapse, edit_distance, error_rate, split_words


def by_recursion(a, b):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        )

    return distance(len(a), len(b))


def test_edit_distance_against_the_recursion():
    source = random.Random(0)
    seen = set()
    for _ in range(200):
        a, b = ("".join(source.choices("ab c", k=source.randrange(9))) for _ in range(2))
        seen.add(edit_distance(a, b))
        assert edit_distance(a, b) == edit_distance(b, a) == by_recursion(a, b)
    assert len(seen) > 5


def test_edges():
    assert edit_distance("", "") == 0
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance([1, 2, 3], [1, 2, 3]) == 0


def test_error_rate_counts_over_all_sequences():
    assert error_rate([[1, 2, 3], [4]], [[1, 9, 3], [4, 5]]) == 2 / 4
    assert error_rate([["a", "b"], []], [["a", "b"], []]) == 0
    assert error_rate([[]], [[1]]) == float("inf")
    assert error_rate([], []) == 0
    with pytest.raises(ShapeError, match="a transcript for each reference, got 1 and 2"):
        error_rate([[1]], [[1], [2]])


@pytest.mark.parametrize(
    "frames, tokens",
    [([], []), ([0, 0], []), ([3, 3, 3], [3]), ([3, 0, 3], [3, 3]), ([0, 1, 1, 2, 0, 2, 2], [1, 2, 2])],
)
def test_ctc(frames, tokens):
    assert ctc_collapse(frames) == tokens
    assert ctc_collapse([9 - f for f in frames], blank=9) == [9 - token for token in tokens]


def test_words():
    assert split_words([4, 1, 2, 4, 3], separator=4) == [(1, 2), (3,)]
    assert split_words([], separator=4) == []
