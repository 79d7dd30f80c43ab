"""Inputs that many entries share: tokens with padding, pictures, sounds."""

from __future__ import annotations

import torch
from torch import Tensor

VOCABULARY = 128
BATCH, LENGTH = 2, 12


def tokens(length: int = LENGTH, batch: int = BATCH) -> Tensor:
    """Random token ids; the first three (padding, begin, end) are left out."""
    return torch.randint(3, VOCABULARY, (batch, length))


def mask(length: int = LENGTH, *, left: bool = False) -> Tensor:
    """An attention mask in which the first row has three padded positions."""
    result = torch.ones(BATCH, length, dtype=torch.int64)
    result[0, slice(None, 3) if left else slice(-3, None)] = 0
    return result


def prompt() -> dict[str, Tensor]:
    """Tokens for a decoder, padded on the left as for generation."""
    return {"input_ids": tokens(), "attention_mask": mask(left=True)}


def unpadded() -> dict[str, Tensor]:
    """Tokens alone, for models without padding."""
    return {"input_ids": tokens()}


def text() -> dict[str, Tensor]:
    """Tokens for an encoder, padded on the right."""
    return {"input_ids": tokens(), "attention_mask": mask()}


def two_texts() -> dict[str, Tensor]:
    """Tokens for an encoder and for its decoder."""
    return {**text(), "decoder_input_ids": tokens(5)}


def picture(size: int = 32) -> dict[str, Tensor]:
    """Two pictures of three channels."""
    return {"pixel_values": torch.randn(BATCH, 3, size, size)}


def text_and_picture(size: int = 32) -> dict[str, Tensor]:
    """Tokens and a picture for each of two samples."""
    return {**text(), **picture(size)}


def waveform(length: int = 1600) -> dict[str, Tensor]:
    """Two sounds without padding."""
    return {"input_values": torch.randn(BATCH, length)}
