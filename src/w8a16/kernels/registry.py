"""Which backend runs the op, and why not the others.

A backend is data plus two functions. `decide` judges every backend for a device type and gives a
reason for each; `select` takes the first accepted one. `W8A16_BACKEND` forces a backend: a forced
backend that cannot run is an error, never a silent fallback.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from w8a16.errors import BackendError
from w8a16.kernels import cpu, reference

FORCE_VARIABLE = "W8A16_BACKEND"


@dataclass(frozen=True)
class Backend:
    """One implementation of the ops; its functions get checked arguments."""

    name: str
    linear: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    linear_input_grad: Callable[[Tensor, Tensor, Tensor], Tensor]
    why_not: Callable[[str], str | None]
    """Maps a device type to the reason why the backend cannot run there, or None."""
    embedding: Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor] = reference.embedding
    dequantize: Callable[[Tensor, Tensor, torch.dtype], Tensor] = reference.dequantize
    grouped_linear: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], Tensor] = (
        reference.grouped_linear
    )
    grouped_linear_input_grad: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = (
        reference.grouped_linear_input_grad
    )
    refined_linear: Callable[
        [Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor
    ] = reference.refined_linear
    refined_linear_input_grad: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor] = (
        reference.refined_linear_input_grad
    )
    note: Callable[[], str] | None = None
    """What to say beside "runs on ...", for people."""


@dataclass(frozen=True)
class Decision:
    """The verdict on one backend for one device type."""

    backend: str
    accepted: bool
    reason: str


_BACKENDS = (
    # First match wins: faster backends go above the reference.
    Backend(
        "cpu-native",
        *(cpu.linear, cpu.linear_input_grad, cpu.why_not, cpu.embedding, cpu.dequantize),
        *(cpu.grouped_linear, cpu.grouped_linear_input_grad),
        refined_linear=cpu.refined_linear,
        refined_linear_input_grad=cpu.refined_linear_input_grad,
        note=cpu.note,
    ),
    Backend("reference", reference.linear, reference.linear_input_grad, why_not=lambda device_type: None),
)


def backends() -> tuple[Backend, ...]:
    """All known backends, the preferred one first."""
    return _BACKENDS


def decide(device_type: str) -> list[Decision]:
    """Judge every backend for a device type (`"cpu"`, `"cuda"`, ...), the preferred one first."""
    forced = forced_backend()
    decisions = []
    for backend in _BACKENDS:
        problem = backend.why_not(device_type)
        if forced is not None and backend.name != forced:
            decisions.append(Decision(backend.name, False, f"{FORCE_VARIABLE}={forced} asks for another one"))
        elif problem is not None:
            decisions.append(Decision(backend.name, False, problem))
        else:
            note = "" if backend.note is None else f", {backend.note()}"
            decisions.append(Decision(backend.name, True, f"runs on {device_type}{note}"))
    return decisions


def forced_backend() -> str | None:
    """The backend named by `W8A16_BACKEND`, or None; an unknown name is a `BackendError`."""
    name = os.environ.get(FORCE_VARIABLE)
    if not name:
        return None
    known = [backend.name for backend in _BACKENDS]
    if name not in known:
        raise BackendError(f"{FORCE_VARIABLE}={name!r}: expected one of {', '.join(known)}")
    return name


def select(device_type: str) -> Backend:
    """The backend that runs on a device type; `BackendError` where a forced one cannot."""
    return _select(device_type, os.environ.get(FORCE_VARIABLE))


@functools.cache
def _select(device_type: str, forced: str | None) -> Backend:
    decisions = decide(device_type)
    for backend, decision in zip(_BACKENDS, decisions, strict=True):
        if decision.accepted:
            return backend
    reasons = "; ".join(f"{d.backend}: {d.reason}" for d in decisions)
    raise BackendError(f"no backend can run on {device_type} ({FORCE_VARIABLE}={forced}): {reasons}")
