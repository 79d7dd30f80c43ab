"""All of multi-head attention but its weights.

It does what `torch.nn.functional.multi_head_attention_forward` does between its input and output
projections, with the same operators, on views of the projections instead of copies.

Letters: B batch, H heads, L queries, S keys, D width of a head, E = H D.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from w8a16.errors import DtypeError, ShapeError, UsageError


@dataclass(frozen=True)
class Sequences:
    """How sequences lie in a tensor `[..., E]`, and how many heads E is split into."""

    heads: int
    batch_first: bool
    is_batched: bool

    def split(self, projected: Tensor) -> Tensor:
        """`[B, L, E]`, `[L, B, E]` or `[L, E]` to `[B, H, L, D]`; a view."""
        split: Tensor = projected.unflatten(-1, (self.heads, -1))
        if not self.is_batched:
            return split.transpose(0, 1).unsqueeze(0)
        return split.transpose(1, 2) if self.batch_first else split.permute(1, 2, 0, 3)

    def join(self, attended: Tensor) -> Tensor:
        """The way back."""
        if not self.is_batched:
            return attended.squeeze(0).transpose(0, 1).flatten(-2)
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        return attended.permute(order).flatten(-2)

    def check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Refuse what would be broadcast silently.

        Raises:
            ShapeError: not all `[B, L, E]` (or all `[L, E]`), another batch size, or keys without values.
        """
        shapes = f"query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
        if query.dim() not in (2, 3) or not query.dim() == key.dim() == value.dim():
            raise ShapeError(
                f"expected all of query, key and value with 3 (or all with 2) dimensions, got {shapes}"
            )
        if key.shape[:-1] != value.shape[:-1]:
            raise ShapeError(f"expected a value for every key, got {shapes}")
        batch = 0 if self.batch_first else 1
        if self.is_batched and query.shape[batch] != key.shape[batch]:
            raise ShapeError(f"expected the same batch size (dimension {batch}), got {shapes}")


@dataclass(frozen=True)
class Settings:
    """What a call or its module asks for, besides the sequences and the masks."""

    need_weights: bool = True
    average_weights: bool = True
    dropout: float = 0.0
    tokens: tuple[Tensor, Tensor] | None = None
    """A key and a value `[1, 1, E]` that are appended to every sequence."""
    add_zeros: bool = False
    """Whether a key and a value of zeros are appended as well."""


@dataclass(frozen=True)
class Masks:
    """What is added to the scores: two terms that broadcast to `[B, H, L, S]`, or None."""

    scores: Tensor | None
    padding: Tensor | None
    is_causal: bool

    def padded(self, count: int) -> Masks:
        """The masks for `count` more keys, which every query may see."""
        if count == 0:
            return self
        scores, padding = (
            None if m is None else functional.pad(m, (0, count)) for m in (self.scores, self.padding)
        )
        return Masks(scores, padding, self.is_causal)

    def merged(self) -> Tensor | None:
        """One mask for both."""
        if self.scores is None or self.padding is None:
            return self.padding if self.scores is None else self.scores
        return self.scores + self.padding


def read_masks(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
    need_weights: bool,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
) -> Masks:
    """Masks as callers give them, for scores of `shape` [B, H, L, S].

    `is_causal` is a hint that `attn_mask` is the causal one: it is followed where the kernel can mask
    by itself, and where it cannot, the mask is used.

    Raises:
        ShapeError: a mask of another shape.
        DtypeError: a mask that is neither bool nor float.
        UsageError: `is_causal` without a mask.
    """
    batch, heads, queries, keys = shape
    if is_causal and attn_mask is None:
        raise UsageError(
            "is_causal is a hint about attn_mask, which is None; "
            "nn.Transformer.generate_square_subsequent_mask makes the mask"
        )
    if is_causal and key_padding_mask is None and not need_weights:
        return Masks(None, None, True)
    scores = padding = None
    if attn_mask is not None:
        allowed = [(queries, keys), (batch * heads, queries, keys)]
        scores = _added("attn_mask", attn_mask, allowed, dtype)
        scores = scores.view(batch, heads, queries, keys) if scores.dim() == 3 else scores
    if key_padding_mask is not None:
        allowed = [(batch, keys), (keys,)] if batch == 1 else [(batch, keys)]
        padding = _added("key_padding_mask", key_padding_mask, allowed, dtype).view(batch, 1, 1, keys)
    return Masks(scores, padding, False)


def _added(name: str, mask: Tensor, shapes: list[tuple[int, ...]], dtype: torch.dtype) -> Tensor:
    """The mask as numbers to add: 0 where a bool mask lets through, -inf where it does not."""
    if tuple(mask.shape) not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise ShapeError(f"{name}: expected {expected}, got {list(mask.shape)}")
    if mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise DtypeError(f"{name}: expected bool or float, got {mask.dtype}")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


Projected = tuple[Tensor, Tensor, Tensor]


def project_packed(
    query: Tensor, key: Tensor, value: Tensor, width: int, rows: Callable[[Tensor, int, int], Tensor]
) -> Projected:
    """Queries, keys and values `[..., E]` by one weight `[3E, E]`; views of one result where inputs are one.

    `rows(input, start, stop)` applies the rows `start` to `stop` of the weight.
    """
    if key is not value:
        return rows(query, 0, width), rows(key, width, 2 * width), rows(value, 2 * width, 3 * width)
    if query is key:
        q, k, v = rows(query, 0, 3 * width).split(width, dim=-1)
        return q, k, v
    k, v = rows(key, width, 3 * width).split(width, dim=-1)
    return rows(query, 0, width), k, v


def attention(
    projected: Projected,
    sequences: Sequences,
    settings: Settings,
    attn_mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What goes into the output projection, lying as the queries do, and the weights where wanted."""
    query, key, value = (sequences.split(x) for x in projected)
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    masks = read_masks(attn_mask, key_padding_mask, is_causal, settings.need_weights, shape, query.dtype)
    key, value = _with_extra_keys(key, value, settings)
    masks = masks.padded((settings.tokens is not None) + settings.add_zeros)
    if not settings.need_weights:
        attended = functional.scaled_dot_product_attention(
            query, key, value, masks.merged(), settings.dropout, masks.is_causal
        )
        return sequences.join(attended), None
    attended, weights = _attend_with_weights(query, key, value, masks.merged(), settings.dropout)
    weights = weights.mean(dim=1) if settings.average_weights else weights
    return sequences.join(attended), weights if sequences.is_batched else weights.squeeze(0)


def _attend_with_weights(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attention `[B, H, L, D]` and its weights `[B, H, L, S]`."""
    batch, heads, length, width = query.shape
    flat_query = (query * math.sqrt(1.0 / width)).flatten(0, 1)
    flat_key, flat_value = key.flatten(0, 1), value.flatten(0, 1)
    if mask is None:
        scores = torch.bmm(flat_query, flat_key.transpose(-2, -1))
    else:
        mask = mask.expand(batch, heads, length, key.shape[2]).flatten(0, 1)
        scores = torch.baddbmm(mask, flat_query, flat_key.transpose(-2, -1))
    weights = functional.softmax(scores, dim=-1)
    if dropout > 0.0:
        weights = functional.dropout(weights, p=dropout)
    attended = torch.bmm(weights, flat_value)
    return attended.unflatten(0, (batch, heads)), weights.unflatten(0, (batch, heads))


def _with_extra_keys(key: Tensor, value: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    if settings.tokens is not None:
        key, value = (
            torch.cat([x, t.to(x.dtype).view(1, x.shape[1], 1, -1).expand(x.shape[0], -1, -1, -1)], dim=2)
            for x, t in zip((key, value), settings.tokens, strict=True)
        )
    if settings.add_zeros:
        key, value = (functional.pad(x, (0, 0, 0, 1)) for x in (key, value))
    return key, value
