"""Calling models so that what differs between two of them is the weights and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.errors import ComparisonError, UsageError, W8A16Error
from w8a16.study.compare.nesting import float_tensors_in, signature, tensors_in


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the training flag of every module is what it was afterwards."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def same_randomness(seed: int = 0) -> Iterator[None]:
    """Random numbers from `seed` inside the block; afterwards the generators go on as if it had not been."""
    state = random.getstate()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        _seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


def _seed(seed: int) -> None:
    """Like `torch.manual_seed`, which takes a stack trace at each call where CUDA is not in use."""
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def call(model: Callable[..., Any], batch: Any) -> Any:
    """A tensor is the argument, a tuple or list the positional ones, a mapping the named ones."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def run(model: nn.Module, batch: Any, which: str, number: int) -> Any:
    """Call a model on a batch, with the same random numbers at every call.

    Raises:
        ComparisonError: the model cannot take the batch.
    """
    try:
        with same_randomness():
            return call(model, batch)
    except W8A16Error as error:
        raise error.at(f"the {which} model on batch {number} ({signature(batch)})") from error
    except Exception as error:  # foreign code: whatever it raises, the inputs do not suit it
        raise ComparisonError(
            f"the {which} model cannot take batch {number} ({signature(batch)}): "
            f"{type(error).__name__}: {error}; pass batches of what {type(model).__name__}.forward takes: a "
            "tensor, a tuple of positional arguments, or a dict of named ones"
        ) from error


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Without torch's fused encoder kernels, which call no module inside: hooks would never fire."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def check_inputs(inputs: Any) -> None:
    """Refuse what is one batch and not an iterable of batches."""
    if isinstance(inputs, (Tensor, Mapping, str, bytes)) or not hasattr(inputs, "__iter__"):
        raise UsageError(
            f"inputs: expected an iterable of batches, got one {type(inputs).__name__}; pass [inputs] for a "
            "single batch"
        )


def check_batch(batch: Any, number: int) -> int:
    """Refuse an empty batch; return how many samples it has."""
    tensors = list(tensors_in(batch))
    if all(tensor.numel() == 0 for _, tensor in tensors) if tensors else not batch:
        raise UsageError(
            f"inputs: batch {number} is empty ({signature(batch)}); pass tensors with at least one sample"
        )
    return next((tensor.shape[0] for _, tensor in tensors if tensor.dim() > 0), 1)


def nonfinite_in(value: Any, whole: str = "the output") -> str | None:
    """Which float tensors hold NaN or Inf, in words; None where none does."""
    found = []
    for path, tensor in float_tensors_in(value).items():
        wrong = ~torch.isfinite(tensor)
        count = int(wrong.sum())
        if count:
            first = wrong.nonzero()[0].tolist()
            found.append(f"{count} of {tensor.numel()} values of {path or whole}, the first at {first}")
    return "; ".join(found) or None


def nonfinite_error(which: str, problem: str, model: nn.Module, batch: Any, number: int) -> ComparisonError:
    """The error for outputs with NaN or Inf: where they come from."""
    in_inputs = nonfinite_in(batch, "the tensor")
    if in_inputs:
        return ComparisonError(f"inputs: batch {number} holds NaN or Inf: {in_inputs}")
    first = _first_nonfinite_module(model, batch)
    where = f"; the first module whose output is not finite is {first}" if first else ""
    advice = {
        "float": "there is nothing to compare with; pass inputs that suit the float model, or the model in "
        "another dtype",
        "int8": "the float model's are finite; activations may exceed the range of their dtype, or scales be "
        "damaged",
    }
    return ComparisonError(
        f"the {which} model gives NaN or Inf for batch {number}: {problem}{where}; {advice[which]}"
    )


def _first_nonfinite_module(model: nn.Module, batch: Any) -> str | None:
    """The first module, in the order in which they finish, with NaN or Inf in its output."""
    found: list[str] = []
    names = {id(module): path for path, module in model.named_modules()}

    def look(module: nn.Module, arguments: Any, output: Any) -> None:
        if not found and nonfinite_in(output):
            found.append(f"{names[id(module)] or 'the model itself'} ({type(module).__name__})")

    handles = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with same_randomness(), without_fast_path():
            call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
