"""English text that comes with Python: the topics of `help()`, as bytes.

Some topics repeat paragraphs of others, so whatever is held out is removed from the rest, paragraph by
paragraph; otherwise a model could score by memory.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

_HELD_OUT_OF = 7  # every seventh topic: about a fifth of the bytes


@lru_cache(maxsize=1)
def documentation() -> tuple[Tensor, Tensor]:
    """The bytes to train on and the held-out bytes, each int64 `[bytes]`, without a common paragraph."""
    from pydoc_data.topics import topics  # noqa: PLC0415

    pages = [_paragraphs(topics[name]) for name in sorted(topics)]
    held_out = [paragraph for page in pages[::_HELD_OUT_OF] for paragraph in page]
    known = set(held_out)
    rest = [
        paragraph
        for number, page in enumerate(pages)
        if number % _HELD_OUT_OF
        for paragraph in page
        if paragraph not in known
    ]
    return _bytes("\n\n".join(rest)), _bytes("\n\n".join(held_out))


def random_blocks(text: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """So many blocks from random places: int64 `[count, length]`."""
    starts = torch.randint(len(text) - length, (count,), generator=generator)
    return text[starts[:, None] + torch.arange(length)]


def spread_blocks(text: Tensor, count: int, length: int) -> Tensor:
    """So many blocks, evenly spread over the text and never overlapping: int64 `[count, length]`.

    Example:
        >>> spread_blocks(torch.arange(10), 2, 3).tolist()
        [[0, 1, 2], [5, 6, 7]]
    """
    step = len(text) // count
    if step < length:
        raise ValueError(f"expected at least {count} x {length} bytes of text, got {len(text)}")
    return text[(torch.arange(count) * step)[:, None] + torch.arange(length)]


def bits_per_byte(logits: Tensor, blocks: Tensor) -> Tensor:
    """Mean of `-log2 p(byte | bytes before it in the block)` over all but the first byte: float64 `[blocks]`.

    `logits` is `[blocks, length, 256]`; position t predicts byte t + 1.
    """
    logs = torch.log_softmax(logits[:, :-1].double(), dim=-1)
    chosen = logs.gather(-1, blocks[:, 1:, None]).squeeze(-1)
    return -chosen.mean(-1) / torch.log(torch.tensor(2.0, dtype=torch.float64))


def pair_frequencies(text: Tensor) -> Tensor:
    """Logits of the byte that follows each byte, from counts of pairs plus one: `[256, 256]`."""
    counts = torch.ones(256 * 256, dtype=torch.float64)
    counts += torch.bincount(text[:-1] * 256 + text[1:], minlength=256 * 256)
    pairs = counts.reshape(256, 256)
    return (pairs / pairs.sum(-1, keepdim=True)).log()


def _paragraphs(page: str) -> list[str]:
    return [part.strip("\n") for part in page.split("\n\n") if part.strip()]


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
