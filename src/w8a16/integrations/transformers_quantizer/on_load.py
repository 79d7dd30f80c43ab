"""Quantize while transformers loads: each float weight as it arrives, the modules at the end.

    before   the float model is on the meta device: make the plan
    during   transformers reads a tensor, renames, merges and casts it as for any model, and hands it over;
             its codes are kept, and the tensor is dropped. The model's own parameter stays on meta
    after    transformers has tied the weights: the plan is carried out on the meta model, as for a skeleton,
             and the codes take their places

So the classes, ties, hooks and kinds of layers are those of `w8a16.quantize`, and never more than one float
weight is in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps

from w8a16.convert import Plan, PlanRow, Recipe, execute, prepare
from w8a16.errors import DtypeError, ShapeError, WeightValueError
from w8a16.integrations.transformers_quantizer.config import W8A16Config
from w8a16.integrations.transformers_quantizer.mapped import MappedFiles
from w8a16.integrations.transformers_quantizer.stored import LOADED
from w8a16.layers import HeldWeight, Layout, QuantizedModule, quantize_with_layout
from w8a16.layers.base import PROBE
from w8a16.layers.tensor_names import tensor_names


class OnLoad:
    """The weights of one model that are quantized as they arrive."""

    def __init__(self, model: nn.Module, config: W8A16Config, files: Iterable[str] = ()) -> None:
        """Make the plan for a model on the meta device.

        Args:
            model: built by transformers, without values.
            config: the rules.
            files: what it is loaded from.

        Raises:
            PatternError, CoverageError: as `w8a16.quantize`.
        """
        self._model, self._config, self._mapped = model, config, MappedFiles(files)
        self._tie()
        draft = prepare(model, config.rules, config.strict, config.on_nonfinite)
        paths = {id(module): path for path, module in model.named_modules()}
        self._layouts: dict[str, Layout] = {}
        for conversion in draft.conversions:
            for candidate, _ in conversion.weights:
                if candidate.source.is_plain:  # the parts of a computed weight are put together at the end
                    self._layouts[_below(paths[id(candidate.module)], candidate.name)] = candidate.layout
        for row in draft.plan.rows:
            _share_layout(row, self._layouts)
        self._arrived: dict[str, tuple[HeldWeight, torch.dtype]] = {}
        self._refused: dict[str, str] = {}
        self._misfits: list[str] = []

    def wants(self, name: str) -> bool:
        """Whether the parameter with this full name is quantized when it arrives."""
        return name in self._layouts

    def take(self, name: str, tensor: Tensor) -> Tensor | None:
        """Quantize the values of a parameter, or give them back where they stay as they are."""
        parameter = self._model.get_parameter(name)
        if type(parameter) is not nn.Parameter or type(tensor) not in (Tensor, nn.Parameter):
            raise DtypeError(
                f"{name}: quantizing on load works on whole tensors, found {type(tensor).__name__} for a "
                f"{type(parameter).__name__}: quantize the folder first (w8a16 quantize SRC DST)"
            )
        if tensor.shape != parameter.shape:
            del self._layouts[name]  # a misfit is transformers' to report, or to fill with random numbers
            self._misfits.append(name)
            return tensor
        try:
            held = quantize_with_layout(tensor, self._layouts[name])
        except WeightValueError as error:
            del self._layouts[name]
            self._refused[name] = str(error)
            return tensor
        self._mapped.release(tensor)
        self._arrived[name] = held, tensor.dtype
        setattr(parameter, LOADED, True)  # it keeps its place on meta
        return None

    def finish(self, missing: Collection[str]) -> Plan:
        """Carry out the plan once all has arrived and is tied.

        Args:
            missing: the parameters that the checkpoint does not hold. They stay float.

        Raises:
            WeightValueError: weights hold NaN or Inf; names, counts and first positions.
        """
        if self._refused and self._config.on_nonfinite == "error":
            listed = "".join(f"\n  {name}: {problem}" for name, problem in self._refused.items())
            raise WeightValueError(
                f"{listed}\non_nonfinite='keep-float' in the W8A16Config leaves such weights as they are"
            )
        self._tie_what_is_stored_twice()
        plan = execute(
            self._model,
            self._rules_for_what_came(missing),
            on_nonfinite=self._config.on_nonfinite,
            value_problems=self._refused,
        )
        for row in plan.rows:
            if row.verdict == "int8":
                self._fill(row)
        for module in self._model.modules():
            if isinstance(module, QuantizedModule) and PROBE in module._parameters:
                module.keep_probe()  # where the codes are now, not on meta
        self._arrived.clear()
        return plan

    def _rules_for_what_came(self, missing: Collection[str]) -> Recipe:
        """The rules, without what is missing: random numbers are to be trained, and are not worth codes."""
        named = dict(self._model.named_parameters(remove_duplicate=False))
        absent = [name for name in self._layouts if name in missing and not named[name].is_meta]
        absent += self._misfits
        if not absent:
            return self._config.rules
        rules = self._config.rules
        given = rules.to_dict()["exclude"] or []
        return replace(rules, exclude=[*given, *absent])

    def _tie(self) -> None:
        """Tied weights have one verdict; transformers ties them anew when it has loaded them."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        for target, source in getattr(self._model, "all_tied_weights_keys", {}).items():
            one, other = parameters.get(target), parameters.get(source)
            if one is not None and other is not None and one.shape == other.shape:
                path, _, name = target.rpartition(".")
                self._model.get_submodule(path)._parameters[name] = other

    def _tie_what_is_stored_twice(self) -> None:
        """transformers ties what a checkpoint holds twice if the values are equal; ours are codes by now."""
        for target, source in getattr(self._model, "all_tied_weights_keys", {}).items():
            one, other = self._arrived.get(target), self._arrived.get(source)
            if one is None or other is None or not _equal(one[0], other[0]):
                continue
            path, _, name = target.rpartition(".")
            setattr(self._model.get_submodule(path), name, self._model.get_parameter(source))

    def _fill(self, row: PlanRow) -> None:
        """Put the codes that arrived in the place of those on meta; tied weights share them."""
        names = (row.name, *row.aliases)
        arrived = next((self._arrived[name] for name in names if name in self._arrived), None)
        if arrived is None:
            return  # computed from several parameters, and quantized just now
        held, dtype = arrived
        for name in names:
            path, _, own = name.rpartition(".")
            module = self._model.get_submodule(path)
            assert isinstance(module, QuantizedModule)
            tensors = (held.int8_weights, held.scales, *(held.outliers or ()))
            for key, tensor in zip(tensor_names(own, module.layouts[own]), tensors, strict=True):
                module.hold(key, tensor)
            module.weight_dtype = dtype


class QuantizeArriving(ConversionOps):  # type: ignore[misc]  # transformers is not typed
    """The step of transformers' loading in which a tensor has its final name, shape and dtype."""

    def __init__(self, on_load: OnLoad) -> None:
        self._on_load = on_load

    def convert(self, input_dict: dict[str, Any], **details: Any) -> dict[str, Any]:
        """Take the tensors that become int8, and return the others."""
        missing, left = details.get("missing_keys"), {}
        for name in list(input_dict):
            tensors = input_dict.pop(name)  # freed as soon as it is quantized
            tensor = tensors[0] if isinstance(tensors, list) else tensors
            del tensors
            kept = self._on_load.take(name, tensor) if self._on_load.wants(name) else tensor
            del tensor
            if kept is not None:
                left[name] = kept
            elif missing is not None:
                missing.discard(name)
        return left

    @property
    def reverse_op(self) -> ConversionOps:
        """Nothing is undone on saving: codes are stored as codes."""
        raise ShapeError("int8 weights are stored as they are, under their own names")


def _share_layout(row: PlanRow, layouts: dict[str, Layout]) -> None:
    """A checkpoint may hold a tied weight under any of its names."""
    known = next((layouts[name] for name in (row.name, *row.aliases) if name in layouts), None)
    if known is not None:
        for name in row.aliases:
            layouts.setdefault(name, known)


def _equal(one: HeldWeight, other: HeldWeight) -> bool:
    return (
        one.int8_weights.shape == other.int8_weights.shape
        and one.int8_weights.device == other.int8_weights.device
        and torch.equal(one.int8_weights, other.int8_weights)
        and torch.equal(one.scales, other.scales)
    )


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
