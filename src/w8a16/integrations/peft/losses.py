"""What a merge lost: the merged weight is rounded to int8 again.

Rounding errors of the whole weight stand against the adapter's change of it. An adapter that changes a
weight by less than the rounding does is still merged, but there is no telling its effect from noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from w8a16.errors import W8A16Warning
from w8a16.study.metrics import largest_difference, sqnr_db


@dataclass(frozen=True)
class MergeLoss:
    """How far a merged int8 weight is from the exact sum of base and adapter."""

    sqnr_db: float
    """Signal to quantization noise of the weight, in decibels."""
    adapter_db: float
    """The adapter's change against the same noise, in decibels; below 0 the noise is larger."""
    largest_difference: float
    """The largest change of an element by rounding."""


_LOSSES: WeakKeyDictionary[nn.Module, dict[str, MergeLoss]] = WeakKeyDictionary()


def merge_losses(model: nn.Module) -> dict[str, MergeLoss]:
    """What merging adapters into the int8 weights of `model` lost, by the names that they have in it.

    For merged models, and for those that `merge_and_unload` returned; not for copies of them.

    Example:
        >>> merge_losses(nn.Linear(2, 2))
        {}
    """
    return {
        f"{path}.{name}" if path else name: loss
        for path, module in model.named_modules()
        for name, loss in _LOSSES.get(module, {}).items()
    }


def note_losses(
    base: nn.Module,
    before: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    merged: Mapping[str, Tensor],
) -> None:
    """Remember the losses of one layer, and warn where rounding outweighs the adapter.

    Warns:
        W8A16Warning: an adapter's change of a weight is smaller than the rounding error.
    """
    losses = {name: _loss(before[name], exact[name], merged[name]) for name in exact}
    _LOSSES[base] = losses
    if any(loss.adapter_db < 0 for loss in losses.values()):
        # One text for all layers, so that Python shows it once.
        warnings.warn(
            "rounding merged weights to int8 changed some of them more than the adapter did: see "
            "w8a16.integrations.peft.merge_losses(model); leave the adapter unmerged, or merge it into the "
            "float model and quantize that",
            W8A16Warning,
            stacklevel=4,
        )


def forget_losses(base: nn.Module) -> None:
    """The adapters are no longer merged."""
    _LOSSES.pop(base, None)


def _loss(before: Tensor, exact: Tensor, merged: Tensor) -> MergeLoss:
    noise, change = merged - exact, exact - before
    return MergeLoss(
        sqnr_db=sqnr_db(exact, merged),
        adapter_db=sqnr_db(change, change + noise),
        largest_difference=largest_difference(exact, merged),
    )
