"""CRC-32 of the native kernels: zlib's numbers, for every length and start, by every instruction set."""

import random
import zlib

import pytest

from w8a16.kernels import checksum, cpu, crc32

pytestmark = pytest.mark.every_variant


def test_every_length_and_start():
    source = random.Random(0)
    for length in [*range(1, 400), 4095, 4096, 4097, 65_536, 1_000_003]:
        data, before = bytearray(source.randbytes(length)), source.getrandbits(32)
        assert cpu.crc32(memoryview(data), before) == zlib.crc32(data, before), length


def test_every_single_bit_counts():
    data = bytearray(1024)
    seen = {cpu.crc32(memoryview(data), 0)}
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        seen.add(cpu.crc32(memoryview(data), 0))
        data[bit // 8] ^= 1 << bit % 8
    assert len(seen) == 8 * len(data) + 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_holds_the_bytes(kind):
    data = kind(bytes(range(256)) * 64)
    assert crc32(data) == zlib.crc32(data)
    assert crc32(data, 5) == zlib.crc32(data, 5)
    assert crc32(kind(b"")) == 0


def test_the_native_code_is_used(monkeypatch):
    calls = []
    monkeypatch.setattr(checksum.cpu, "crc32", lambda data, before: calls.append(len(data)) or 0)
    crc32(memoryview(bytearray(1 << 16)))
    assert calls == [1 << 16]
