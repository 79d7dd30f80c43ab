"""The int8 modules of a model, and where what each of them does can be seen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from w8a16.convert import effective_weight
from w8a16.errors import ComparisonError
from w8a16.layers import QuantizedModule, kind_of_quantized, tier_of
from w8a16.study.compare.float_mode import WeightSource

_MOST_NAMED = 10


@dataclass(frozen=True)
class Unit:
    """One int8 module."""

    name: str
    """Its first path."""
    module: QuantizedModule
    site: str
    """The path of the module whose calls show what this one does: itself, or the attention around the
    output projection, which torch's float attention does not call but reads."""

    @property
    def kind(self) -> str:
        """The layer kind, as in a plan."""
        kind = kind_of_quantized(self.module)
        return kind.name if kind else "parameter"

    @property
    def tier(self) -> str:
        """ "compute" or "storage"."""
        kind = kind_of_quantized(self.module)
        return tier_of(self.module.float_type, kind) if kind else "storage"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the largest float weight."""
        largest = max(self.module.layouts, key=lambda name: self.module.codes_of(name).numel())
        return self.module.layouts[largest].float_shape(tuple(self.module.codes_of(largest).shape))

    def codes(self) -> set[int]:
        """What tied modules have in common."""
        return {id(self.module.codes_of(name)) for name in self.module.layouts}


def units_of(quantized: nn.Module) -> list[Unit]:
    """Every int8 module once, in the order of the model."""
    units = []
    for path, module in quantized.named_modules():
        if isinstance(module, QuantizedModule):
            around, _, own_name = path.rpartition(".")
            inside = path and own_name == "out_proj"
            parent = quantized.get_submodule(around) if inside else None
            site = around if isinstance(parent, nn.MultiheadAttention) else path
            units.append(Unit(path, module, site))
    return units


def tied_names(units: list[Unit]) -> dict[str, tuple[str, ...]]:
    """For each unit the names of all that share its int8 tensors, its own first."""
    return {
        unit.name: (unit.name, *(o.name for o in units if o is not unit and o.codes() & unit.codes()))
        for unit in units
    }


def weights_of(reference: nn.Module) -> WeightSource:
    """The float weights of a model in memory, by full name."""

    def weight(full_name: str) -> Tensor:
        path, _, name = full_name.rpartition(".")
        try:
            found = effective_weight(reference.get_submodule(path), name)
        except AttributeError as error:
            raise KeyError(full_name) from error
        if not isinstance(found, Tensor):
            raise KeyError(full_name)
        return found

    return weight


def check_counterparts(reference: nn.Module, quantized: nn.Module, units: list[Unit]) -> None:
    """Refuse a pair of models that are not the same model before and after.

    Raises:
        ComparisonError: no int8 modules, int8 modules in the reference, or weights without a
            counterpart of the same shape; all of them are named, up to ten.
    """
    check_int8(quantized, units)
    if reference is quantized:
        raise ComparisonError(
            "reference and quantized are the same object: w8a16.quantize works in place, so quantize a "
            "copy.deepcopy of the model, or pass reference=None and `weights`"
        )
    already = [path for path, module in reference.named_modules() if isinstance(module, QuantizedModule)]
    if already:
        raise ComparisonError(
            f"reference: expected a float model, but {len(already)} of its modules are int8 "
            f"({_listed(already)}); pass the model as it was before w8a16.quantize"
        )
    source, problems = weights_of(reference), []
    for unit in units:
        for name in unit.module.layouts:
            full_name = f"{unit.name}.{name}" if unit.name else name
            expected = unit.module.layouts[name].float_shape(tuple(unit.module.codes_of(name).shape))
            try:
                shape = tuple(source(full_name).shape)
            except KeyError:
                problems.append(f"{full_name} {list(expected)} has no counterpart")
                continue
            if shape != expected:
                problems.append(f"{full_name} is {list(shape)}, expected {list(expected)}")
    if problems:
        raise ComparisonError(
            f"reference: {type(reference).__name__} is not the float model of the int8 one: "
            f"{_listed(problems)}; pass the model that was quantized, before it was"
        )


def check_int8(quantized: nn.Module, units: list[Unit]) -> None:
    """Refuse a model without int8 modules."""
    if not units:
        raise ComparisonError(
            f"quantized: {type(quantized).__name__} has no int8 module; pass what w8a16.quantize or "
            "w8a16.load returned"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
