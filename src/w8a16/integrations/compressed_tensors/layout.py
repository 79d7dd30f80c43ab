"""The bytes of `pack-quantized`: how compressed-tensors lays int8 codes of a matrix into int32 words.

    P.weight_packed   int32 [N, ceil(K / 4)]   the bytes q + 128, four to a word, the first one lowest;
                                               the last word of a row is filled up with zeros
    P.weight_scale    float [N, 1]             one scale a row; [N, K / S] for groups of S elements
    P.weight_shape    int64 [2]                N, K

Letters: N rows (output channels), K elements of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from w8a16.errors import CheckpointError

PACKED, SCALE, SHAPE = "weight_packed", "weight_scale", "weight_shape"
ZERO_POINT = "weight_zero_point"

_IN_A_WORD = 4


def words_in(k: int) -> int:
    """How many int32 words hold `k` codes."""
    return -(-k // _IN_A_WORD)


def pack_rows(codes: Tensor, out: Tensor | None = None) -> Tensor:
    """Lay codes into words.

    Args:
        codes: int8 `[N, K]`.
        out: int32 `[N, ceil(K / 4)]`, contiguous, to be filled; default: a new tensor.

    Returns:
        int32 `[N, ceil(K / 4)]`.

    Example:
        >>> [hex(word) for word in pack_rows(torch.tensor([[-127, 0, 127]], dtype=torch.int8))[0].tolist()]
        ['0xff8001']
    """
    n, k = codes.shape
    words = torch.empty(n, words_in(k), dtype=torch.int32) if out is None else out
    bytes_ = words.view(torch.uint8).view(n, words_in(k) * _IN_A_WORD)
    # In two's complement q + 128 is q with the highest bit turned over.
    torch.bitwise_xor(codes.view(torch.uint8), 0x80, out=bytes_[:, :k])
    bytes_[:, k:] = 0
    return words


def unpack_rows(words: Tensor, k: int) -> Tensor:
    """Take the first `k` codes of each row out of the words; the way back from `pack_rows`.

    Args:
        words: int32 `[N, ceil(k / 4)]`, contiguous.
        k: elements of a row.

    Returns:
        int8 `[N, k]`.

    Raises:
        CheckpointError: rows of another length.
    """
    n, width = words.shape
    if width != words_in(k):
        raise CheckpointError(f"expected {words_in(k)} words for {k} codes in a row, got {width}")
    bytes_ = words.contiguous().view(torch.uint8).view(n, width * _IN_A_WORD)[:, :k]
    return torch.bitwise_xor(bytes_, 0x80).view(torch.int8)
