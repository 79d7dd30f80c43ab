"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one tensor."""

    tensor: str
    problem: str
    count: int | None = None
    """How many elements are concerned; None where it is the tensor as a whole."""
    first: tuple[int, ...] | None = None
    """The index of the first of them in the stored tensor."""


@dataclass(frozen=True)
class Report:
    """The outcome; the checkpoint is good where there are no findings."""

    tensors: int
    """How many were read."""
    bytes: int
    """Bytes of all tensors."""
    checksums: int
    """How many tensors have a checksum that was compared; none in files of the first version."""
    lowest_codes: int
    """Codes of -128: accepted, but never written by this library."""
    compared: int
    """How many tensors were compared with the original."""
    not_compared: dict[str, str]
    """Weights and other tensors that could not be, each with the reason; empty without an original."""
    findings: tuple[Finding, ...]
