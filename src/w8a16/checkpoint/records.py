"""What a manifest says, as data: modules, their int8 weights, where they came from, how exact they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from w8a16.layers import Layout

FORMAT_VERSION = 3
"""The third added groups and outliers; a file without them is still written as the second."""


@dataclass(frozen=True)
class WeightRecord:
    """One float weight that is held in int8."""

    layout: Layout
    """How its codes lie."""
    shape: tuple[int, ...]
    """The shape of the codes."""
    sqnr_db: float | None = None
    """Signal to quantization noise in decibels; infinite where nothing was lost, None where unknown."""
    largest_error: float | None = None
    """The largest `|w - q * s|` in units of `s / 2`: at most 1 and a rounding; None where unknown."""


@dataclass(frozen=True)
class ModuleRecord:
    """One quantized module."""

    kind: str
    weight_dtype: torch.dtype
    """The dtype that the float weights had."""
    weights: dict[str, WeightRecord]

    @property
    def codes(self) -> dict[str, tuple[Layout, tuple[int, ...]]]:
        """For each weight how its codes lie, and their shape."""
        return {name: (weight.layout, weight.shape) for name, weight in self.weights.items()}


@dataclass(frozen=True)
class Source:
    """Where the float weights came from."""

    name: str | None
    """A name for people, such as that of the folder."""
    file: str | None = None
    """The name of the file that this file was made from."""
    bytes: int | None = None
    """The size of that file."""
    crc32: int | None = None
    """The CRC-32 of all its bytes."""


@dataclass(frozen=True)
class Manifest:
    """What a file says about itself, or what the files of a checkpoint say together."""

    modules: dict[str, ModuleRecord]
    kept_float: dict[str, str]
    """Parameters of two or more dimensions that stayed float, each with its reason code."""
    ties: dict[str, str] = field(default_factory=dict)
    """State-dict keys that are not stored because they are the same tensor as the named, stored one."""
    non_persistent_buffers: tuple[str, ...] = ()
    """Tensors that are not part of the state dict; a skeleton on the meta device needs them."""
    checksums: dict[str, int] = field(default_factory=dict)
    """The CRC-32 of the bytes of each stored tensor."""
    source: Source | None = None
    origin: str = "model"
    """How it was known what each tensor is: "model", "classes" or "names" (kinds are guesses then)."""
    version: int = FORMAT_VERSION
    """The format version of the file; in the first there are no checksums."""
