"""CRC-32 of parts of a tensor, in any order, and of the whole from them.

The checksum is zlib's: the bytes are the coefficients of a polynomial over GF(2), and the CRC is its
remainder modulo `_POLYNOMIAL`. To append `n` bytes means to multiply by `x ** (8 * n)`, so the CRC of two
neighbouring ranges follows from the CRC of each and the length of the second. Blocks may therefore be
checked by any thread, in any order.

Source: `crc32_combine` of zlib 1.2.12, https://github.com/madler/zlib/blob/v1.2.12/crc32.c
"""

from __future__ import annotations

from functools import lru_cache

from w8a16.kernels import crc32

__all__ = ["combine", "crc32"]

_POLYNOMIAL = 0xEDB88320  # reflected: the highest bit is the coefficient of x ** 0
_ONE, _X = 1 << 31, 1 << 30


def combine(first: int, second: int, second_length: int) -> int:
    """The CRC-32 of two neighbouring ranges, from the CRC of each and the length of the second in bytes.

    Example:
        >>> combine(crc32(b"1234"), crc32(b"56789"), 5) == crc32(b"123456789")
        True
    """
    return _times(first, _x_to_the(second_length)) ^ second


@lru_cache(maxsize=4096)  # blocks have few different lengths
def _x_to_the(length: int) -> int:
    """`x ** (8 * length)` modulo the polynomial, by squaring."""
    power, square, exponent = _ONE, _X, 8 * length
    while exponent:
        if exponent & 1:
            power = _times(power, square)
        square = _times(square, square)
        exponent >>= 1
    return power


def _times(a: int, b: int) -> int:
    """The product of two remainders modulo the polynomial."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product
