"""The instruction sets: which the library has, which this processor can run, and which one does.

Chosen once, when the library is opened: the first of the table that can run. `W8A16_CPU_ISA` names
another one; an unknown name, or one that cannot run here, is an error.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from w8a16.errors import BackendError
from w8a16.kernels.cpu.library import native

FORCE_VARIABLE = "W8A16_CPU_ISA"


@dataclass(frozen=True)
class Variant:
    """One instruction set of the library."""

    name: str
    reason: str | None
    """Why this processor cannot run it, or None where it can."""


def variants() -> list[Variant]:
    """All variants of the library, the preferred one first."""
    library = native()
    found = []
    for index in range(library.w8a16_variant_count()):
        reason = library.w8a16_variant_why_not(index)
        found.append(
            Variant(library.w8a16_variant_name(index).decode(), None if reason is None else reason.decode())
        )
    return found


def chosen_variant() -> str:
    """The name of the variant that runs; `BackendError` where `W8A16_CPU_ISA` names one that cannot."""
    _obey(os.environ.get(FORCE_VARIABLE))
    index: int = native().w8a16_variant_chosen()
    return variants()[index].name


@functools.cache
def _obey(forced: str | None) -> None:
    if forced:
        _choose(forced, f"{FORCE_VARIABLE}={forced}")


def _choose(name: str, who: str) -> None:
    found = variants()
    names = [variant.name for variant in found]
    if name not in names:
        raise BackendError(f"{who}: expected one of {', '.join(names)}")
    index = names.index(name)
    if not native().w8a16_variant_choose(index):
        raise BackendError(f"{who}: {found[index].reason}")


def wide_from() -> int:
    """The number of activation rows from which the wide algorithm runs."""
    rows: int = native().w8a16_wide_from()
    return rows


@contextmanager
def use_variant(name: str) -> Iterator[None]:
    """Run the kernels of one instruction set inside a with block; for tests and benchmarks, one thread."""
    before = chosen_variant()
    _choose(name, f"use_variant({name!r})")
    try:
        yield
    finally:
        _choose(before, f"use_variant({before!r})")
