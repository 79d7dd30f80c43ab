"""Checksums of ranges, combined in any order, are those that zlib gives the whole."""

import random
import zlib

import pytest

from w8a16.checkpoint.container.crc import combine, crc32


def test_it_is_the_checksum_of_zlib():
    data = random.Random(0).randbytes(1000)
    assert crc32(data) == zlib.crc32(data)
    assert crc32(memoryview(data)[300:], crc32(data[:300])) == zlib.crc32(data)


def test_every_split_of_short_data():
    data = random.Random(1).randbytes(65)
    for end in range(len(data) + 1):
        for split in range(end + 1):
            parts = crc32(data[:split]), crc32(data[split:end])
            assert combine(*parts, end - split) == zlib.crc32(data[:end]), (split, end)


@pytest.mark.parametrize("seed", range(20))
def test_many_parts_in_any_order(seed):
    """As a tree: neighbours are joined in random order until one is left."""
    dice = random.Random(seed)
    data = dice.randbytes(dice.randrange(1, 100_000))
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(40)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    parts = [(crc32(piece), len(piece)) for piece in pieces]
    while len(parts) > 1:
        at = dice.randrange(len(parts) - 1)
        (first, first_length), (second, second_length) = parts[at : at + 2]
        parts[at : at + 2] = [(combine(first, second, second_length), first_length + second_length)]
    assert parts == [(zlib.crc32(data), len(data))]


@pytest.mark.parametrize("power", [0, 1, 20, 31, 32, 33, 40, 45, 63])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_lengths_far_beyond_memory(power, more):
    """Zeros appended bit length by bit length: two steps of half the way are one whole step."""
    length = 2**power + more
    zeros = {0: 0, 1: zlib.crc32(b"\0")}

    def of_zeros(count):
        if count not in zeros:
            half = count // 2
            zeros[count] = combine(of_zeros(count - half), of_zeros(half), half)
        return zeros[count]

    assert of_zeros(1000) == zlib.crc32(bytes(1000))
    whole = combine(crc32(b"start"), of_zeros(length), length)
    by_half = combine(crc32(b"start"), of_zeros(length // 2), length // 2)
    rest = length - length // 2
    assert combine(by_half, of_zeros(rest), rest) == whole
