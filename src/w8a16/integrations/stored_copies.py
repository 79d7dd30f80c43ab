"""Whether two stored tensors are the same: some checkpoints hold a tied weight twice."""

from __future__ import annotations

from w8a16.checkpoint import Shards
from w8a16.checkpoint.container.disk import discard, open_source, read_at

_BLOCK = 1 << 22  # bytes


def same_values(shards: Shards, one: str, other: str) -> bool:
    """Compare the bytes of two tensors of the same shape, a few megabytes at a time.

    Raises:
        ResourceError: a file cannot be read.
    """
    first, second = shards.tensors[one], shards.tensors[other]
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    paths = [shards.header_of(name).path for name in (one, other)]
    files: list[int] = []
    try:
        for path in paths:
            files.append(open_source(path))
        blocks = [memoryview(bytearray(min(_BLOCK, first.size))) for _ in files]
        for offset in range(0, first.size, _BLOCK):
            length = min(_BLOCK, first.size - offset)
            for file, path, block, info in zip(files, paths, blocks, (first, second), strict=True):
                read_at(file, block[:length], info.start + offset, path)
            if blocks[0][:length] != blocks[1][:length]:
                return False
        return True
    finally:
        for file in files:
            discard(file)
