"""Carry out a plan: float modules become int8 modules, in place."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from w8a16.convert.inventory import biases_shared_beyond, tie_key
from w8a16.convert.plan import Draft, Plan
from w8a16.convert.select import Patterns
from w8a16.convert.source import take_weight_and_bias
from w8a16.convert.verdict import Candidate
from w8a16.core import QuantizedWeight
from w8a16.errors import UsageError, WeightValueError
from w8a16.kernels import quantize_weight
from w8a16.layers import LayerKind

Progress = Callable[[str, int, int], None]
"""Called as `(module path, bytes done, bytes in all)` after each module."""

ON_NONFINITE = ("error", "keep-float")


def quantize(
    model: nn.Module,
    include: Patterns = None,
    exclude: Patterns = None,
    strict: bool = False,
    *,
    on_nonfinite: str = "error",
    progress: Progress | None = None,
) -> nn.Module:
    """Replace the weights of `model` by int8 codes with one float32 scale per output channel.

    In place, module by module: each module object stays the same one (its class changes), so shared
    modules, hooks, the training flag and foreign attributes survive, and a root that is itself a
    layer is converted too. Float weights are released as the walk goes on. Modules that are int8
    already are left alone. Nothing is changed where an error is raised.

    Args:
        model: any module, on any device. On the meta device the result is a skeleton for `load`.
        include: names, globs or module classes to convert; default: everything that can be.
        exclude: names, globs or module classes to spare; wins over `include`.
        strict: refuse to leave a float weight float, unless the caller excluded it.
        on_nonfinite: "error", or "keep-float" to leave weights with NaN or Inf as they are.
        progress: called after each module.

    Returns:
        The model itself.

    Raises:
        PatternError: a pattern matches nothing, or nothing that can be converted.
        CoverageError: with `strict`, naming every weight that would stay float and the reason.
        WeightValueError: weights hold NaN or Inf: names, counts and first positions.

    Example:
        >>> model = quantize(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)))
        >>> model(torch.randn(2, 64)).shape
        torch.Size([2, 8])
    """
    execute(model, include, exclude, strict, on_nonfinite=on_nonfinite, progress=progress)
    return model


def prepare(
    model: nn.Module, include: Patterns, exclude: Patterns, strict: bool, on_nonfinite: str = "error"
) -> Draft:
    """Make the plan that `execute` carries out, refusing what it refuses; nothing is changed."""
    if on_nonfinite not in ON_NONFINITE:
        raise UsageError(f"on_nonfinite: expected one of {', '.join(ON_NONFINITE)}, got {on_nonfinite!r}")
    draft = Draft(model, include, exclude, strict)
    if on_nonfinite == "error":
        _refuse_nonfinite(draft.plan)
    return draft


def execute(
    model: nn.Module,
    include: Patterns = None,
    exclude: Patterns = None,
    strict: bool = False,
    *,
    on_nonfinite: str = "error",
    progress: Progress | None = None,
) -> Plan:
    """Do what `quantize` does and return the plan that was carried out."""
    draft = prepare(model, include, exclude, strict, on_nonfinite)
    paths = {id(module): path for path, module in model.named_modules()}
    total = sum(_float_bytes(candidate) for candidate, _ in draft.conversions)
    done = 0
    swap = _Swap(biases_shared_beyond(model, (candidate.module for candidate, _ in draft.conversions)))
    pending = draft.conversions[::-1]
    draft.conversions.clear()
    while pending:  # popped one by one: a float weight is freed as soon as its module is converted
        candidate, tie = pending.pop()
        done += _float_bytes(candidate)
        swap.convert(candidate, tie)
        if progress:
            progress(paths[id(candidate.module)], done, total)
    return draft.plan


def adopt_empty(
    module: nn.Module,
    kind: LayerKind,
    shape: tuple[int, int],
    dtype: torch.dtype,
    kept_biases: set[Hashable],
) -> None:
    """Turn a float module into its int8 class on the meta device, to be filled by a loader.

    The float weight is dropped without being read. A bias whose key is among `kept_biases` stays the
    parameter that it is.
    """
    _, bias = take_weight_and_bias(module)
    quantized = quantize_weight(torch.empty(shape, dtype=dtype, device="meta"))
    if bias is not None and tie_key(bias) not in kept_biases:
        bias = torch.empty_like(bias, device="meta")
    kind.quantized_type.adopt(module, quantized, bias, dtype)


class _Swap:
    """Converts modules one by one; tied weights and tied biases share one tensor."""

    def __init__(self, kept_biases: set[Hashable]) -> None:
        self._kept_biases = kept_biases
        self._weights: dict[Hashable, QuantizedWeight] = {}
        self._biases: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def convert(self, candidate: Candidate, tie: Hashable) -> None:
        weight, bias = take_weight_and_bias(candidate.module)
        quantized = self._weights.get(tie)
        if quantized is None:
            quantized = self._weights[tie] = quantize_weight(weight)
        candidate.kind.quantized_type.adopt(candidate.module, quantized, self._shared(bias), weight.dtype)

    def _shared(self, bias: Tensor | None) -> Tensor | None:
        if bias is None or tie_key(bias) in self._kept_biases:
            return bias
        # The float bias is kept beside its detached form: as long as it lives, its key is unique.
        _, detached = self._biases.setdefault(tie_key(bias), (bias, bias.detach()))
        return detached


def _refuse_nonfinite(plan: Plan) -> None:
    bad = [f"{row.name}: {row.sentence}" for row in plan.rows if row.reason == "nonfinite"]
    if bad:
        listed = bad[0] if len(bad) == 1 else "".join(f"\n  {line}" for line in bad)
        raise WeightValueError(
            f"{listed}; nothing was changed; on_nonfinite='keep-float' (--on-nonfinite keep-float) leaves "
            "such weights as they are"
        )


def _float_bytes(candidate: Candidate) -> int:
    return sum(p.numel() * p.element_size() for p in candidate.source.parameters)
