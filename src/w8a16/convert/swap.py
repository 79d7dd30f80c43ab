"""Carry out a plan: float modules become int8 modules, in place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from w8a16.convert.conversion import Conversion
from w8a16.convert.inventory import biases_shared_beyond, tie_key
from w8a16.convert.plan import Draft, Plan
from w8a16.convert.probes import keeping_parameters
from w8a16.convert.recipe import EVERYTHING, Recipe, recipe_of
from w8a16.convert.select import Patterns
from w8a16.convert.source import computed_names, float_type_of, take_weights
from w8a16.convert.tied_names import remembering_ties
from w8a16.errors import UsageError, WeightValueError
from w8a16.layers import (
    HeldWeight,
    LayerKind,
    Layout,
    adapt_encoders,
    anchor_of,
    derived_class,
    quantize_with_layout,
)

Progress = Callable[[str, int, int], None]
"""Called as `(module path, bytes done, bytes in all)` after each module."""

ON_NONFINITE = ("error", "keep-float")


def quantize(
    model: nn.Module,
    include: Patterns = None,
    exclude: Patterns = None,
    strict: bool = False,
    *,
    kinds: str | Sequence[str] | None = None,
    on_nonfinite: str = "error",
    recipe: Recipe | None = None,
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
        kinds: names of the layer kinds to convert (`"linear"`, `"embedding"`, ...); default: all.
        on_nonfinite: "error", or "keep-float" to leave weights with NaN or Inf as they are.
        recipe: instead of `include`, `exclude` and `kinds`: these rules, and which weights are held finer
            than with one scale for a row (in groups, or with outliers).
        progress: called after each module.

    Returns:
        The model itself.

    Raises:
        PatternError: a pattern matches nothing, or nothing that can be converted or held finer.
        CoverageError: with `strict`, naming every weight that would stay float and the reason.
        WeightValueError: weights hold NaN or Inf: names, counts and first positions.

    Example:
        >>> model = quantize(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)))
        >>> model(torch.randn(2, 64)).shape
        torch.Size([2, 8])
    """
    recipe = recipe_of(include, exclude, kinds, recipe)
    execute(model, recipe, strict, on_nonfinite=on_nonfinite, progress=progress)
    return model


def prepare(
    model: nn.Module,
    recipe: Recipe = EVERYTHING,
    strict: bool = False,
    on_nonfinite: str = "error",
    value_problems: Mapping[str, str] = MappingProxyType({}),
) -> Draft:
    """Make the plan that `execute` carries out, refusing what it refuses; nothing is changed."""
    if on_nonfinite not in ON_NONFINITE:
        raise UsageError(f"on_nonfinite: expected one of {', '.join(ON_NONFINITE)}, got {on_nonfinite!r}")
    draft = Draft(model, recipe, strict, value_problems)
    if on_nonfinite == "error":
        _refuse_nonfinite(draft.plan)
    return draft


def execute(
    model: nn.Module,
    recipe: Recipe = EVERYTHING,
    strict: bool = False,
    *,
    on_nonfinite: str = "error",
    progress: Progress | None = None,
    value_problems: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Do what `quantize` does and return the plan that was carried out.

    For a model on the meta device, `value_problems` says by name which parameters hold NaN or Inf.
    """
    draft = prepare(model, recipe, strict, on_nonfinite, value_problems)
    paths = {id(module): path for path, module in model.named_modules()}
    total = sum(conversion.float_bytes for conversion in draft.conversions)
    done = 0
    swap = _Swap(biases_shared_beyond(model, (c.module for c in draft.conversions if _takes_bias(c))))
    pending = draft.conversions[::-1]
    draft.conversions.clear()
    with remembering_ties(model), keeping_parameters(model):
        while pending:  # popped one by one: a float weight is freed as soon as its module is converted
            conversion = pending.pop()
            done += conversion.float_bytes
            swap.convert(conversion)
            if progress:
                progress(paths[id(conversion.module)], done, total)
    adapt_encoders(model)
    return draft.plan


def adopt_empty(
    module: nn.Module,
    kind: LayerKind,
    weights: Mapping[str, tuple[Layout, tuple[int, ...]]],
    dtype: torch.dtype,
    kept_biases: set[Hashable],
) -> None:
    """Turn a float module into its int8 class on the meta device, to be filled by a loader.

    The float weights are dropped without being read. `weights` gives the layout and the shape of the
    codes of each. A bias whose key is among `kept_biases` stays the parameter that it is.
    """
    own_order = [*module._parameters, *computed_names(module)]  # a manifest is sorted by name
    weights = {name: weights[name] for name in sorted(weights, key=own_order.index)}
    take_weights(module, weights)
    quantized_type = derived_class(
        kind.quantized_type, anchor_of(float_type_of(module), kind), float_type_of(module), tuple(weights)
    )
    empty = {
        name: quantize_with_layout(torch.empty(layout.float_shape(shape), device="meta"), layout)
        for name, (layout, shape) in weights.items()
    }
    layouts = {name: layout for name, (layout, _) in weights.items()}
    quantized_type.adopt(module, empty, dtype, layouts)
    bias = module._parameters.get("bias")
    if quantized_type.bias_is_buffer and (bias is None or tie_key(bias) not in kept_biases):
        _bias_as_buffer(module, None if bias is None else torch.empty_like(bias, device="meta"))


class _Swap:
    """Converts modules one by one; tied weights and tied biases share one tensor."""

    def __init__(self, kept_biases: set[Hashable]) -> None:
        self._kept_biases = kept_biases
        self._weights: dict[Hashable, HeldWeight] = {}
        self._biases: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def convert(self, conversion: Conversion) -> None:
        module = conversion.module
        floats = take_weights(module, [candidate.name for candidate, _ in conversion.weights])
        quantized = {}
        for candidate, tie in conversion.weights:
            weight = floats.pop(candidate.name)
            if tie not in self._weights:
                self._weights[tie] = quantize_with_layout(weight, candidate.layout)
            quantized[candidate.name] = self._weights[tie]
            module._parameters.pop(candidate.name, None)  # freed before the next one is quantized
            del weight
        layouts = {candidate.name: candidate.layout for candidate, _ in conversion.weights}
        conversion.quantized_type.adopt(module, quantized, conversion.dtype, layouts)
        if _takes_bias(conversion):
            self._convert_bias(module)

    def _convert_bias(self, module: nn.Module) -> None:
        bias = module._parameters.get("bias")
        if bias is None:
            _bias_as_buffer(module, None)
        elif tie_key(bias) not in self._kept_biases:
            # The float bias is kept beside its detached form: as long as it lives, its key is unique.
            _, detached = self._biases.setdefault(tie_key(bias), (bias, bias.detach()))
            _bias_as_buffer(module, detached)


def _takes_bias(conversion: Conversion) -> bool:
    return conversion.quantized_type.bias_is_buffer


def _bias_as_buffer(module: nn.Module, bias: Tensor | None) -> None:
    module._parameters.pop("bias", None)
    module.register_buffer("bias", bias)


def _refuse_nonfinite(plan: Plan) -> None:
    bad = [f"{row.name}: {row.sentence}" for row in plan.rows if row.reason == "nonfinite"]
    if bad:
        listed = bad[0] if len(bad) == 1 else "".join(f"\n  {line}" for line in bad)
        raise WeightValueError(
            f"{listed}; nothing was changed; on_nonfinite='keep-float' (--on-nonfinite keep-float) leaves "
            "such weights as they are"
        )
