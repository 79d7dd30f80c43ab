"""The plan: for every parameter with two or more dimensions, what happens to it and why.

Making a plan changes nothing. It reads each weight once, to find values that have no int8 code; on
the meta device it reads nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.convert.candidate import Candidate, candidates_of, int8_bytes
from w8a16.convert.conversion import Conversion, conversions
from w8a16.convert.inventory import Entry, inventory, is_uninitialized, tie_key
from w8a16.convert.recipe import Recipe, recipe_of
from w8a16.convert.refine import refine
from w8a16.convert.select import Patterns, Selection, show_pattern
from w8a16.convert.source import effective_weight, float_type_of
from w8a16.convert.text import plan_text
from w8a16.convert.verdict import NO_SHORTFALL, REASONS, Verdict, judge
from w8a16.errors import CoverageError, PatternError, UsageError
from w8a16.layers import QuantizedModule, int8_names, kind_of_quantized, tier_of


@dataclass(frozen=True)
class PlanRow:
    """The verdict on one parameter."""

    name: str
    aliases: tuple[str, ...]
    """Other names of the same memory (tied weights, shared modules)."""
    module_type: str
    kind: str | None
    tier: str | None
    shape: tuple[int, ...]
    dtype: str
    bytes_before: int
    bytes_after: int
    verdict: str
    """"int8" or "float"."""
    reason: str
    """A code, see `w8a16.convert.verdict.REASONS`."""
    sentence: str
    refinement: str | None = None
    """What is finer than one scale for a row ("groups of 128"), or None."""


@dataclass(frozen=True)
class Plan:
    """All rows, in the order of the model, and the totals; `print(plan)` shows a table."""

    rows: tuple[PlanRow, ...]
    other_bytes: int
    """Bytes of everything else: parameters with fewer than two dimensions, and buffers."""
    other_bytes_after: int
    """The same with the plan carried out: buffers of parametrizations and the like are dropped."""

    @property
    def bytes_before(self) -> int:
        """Bytes of the float model, tied memory counted once."""
        return self.other_bytes + sum(row.bytes_before for row in self.rows)

    @property
    def bytes_after(self) -> int:
        """Bytes of the model with the plan carried out."""
        return self.other_bytes_after + sum(row.bytes_after for row in self.rows)

    @property
    def coverage(self) -> float:
        """Share of the bytes of all rows (as float) that become or are int8; 0.0 to 1.0."""
        total = sum(row.bytes_before for row in self.rows)
        return sum(row.bytes_before for row in self.rows if row.verdict == "int8") / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, for JSON."""
        return {
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "other_bytes": self.other_bytes,
            "other_bytes_after": self.other_bytes_after,
            "coverage": self.coverage,
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        return plan_text(self)


def plan(
    model: nn.Module,
    include: Patterns = None,
    exclude: Patterns = None,
    strict: bool = False,
    *,
    kinds: str | Sequence[str] | None = None,
    recipe: Recipe | None = None,
) -> Plan:
    """Say what `quantize` with the same arguments would do, and change nothing.

    Args:
        model: any module, on any device, the meta device included.
        include: names, globs or module classes to convert; default: everything that can be.
        exclude: names, globs or module classes to spare, with all that is inside them. It wins over
            `include`.
        strict: refuse a plan in which a float weight stays float, unless the caller excluded it.
        kinds: names of the layer kinds to convert (`"linear"`, `"embedding"`, ...); default: all.
        recipe: all of these rules, and which weights are held finer; instead of them.

    Returns:
        A `Plan` with one row for each parameter of two or more dimensions.

    Raises:
        PatternError: a pattern matches nothing, or nothing that can be converted.
        CoverageError: with `strict`, naming every weight that stays float and the reason.

    Example:
        >>> model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 256))
        >>> [(row.name, row.verdict, row.reason) for row in plan(model, kinds="linear").rows]
        [('0.weight', 'float', 'kind_not_asked'), ('1.weight', 'int8', 'converted')]
    """
    return Draft(model, recipe_of(include, exclude, kinds, recipe), strict).plan


class Draft:
    """A plan together with the modules that it is about."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        strict: bool,
        value_problems: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        finer = (*recipe.group_size, *recipe.outliers)
        selection = Selection(model, recipe.include, recipe.exclude, recipe.kinds, finer)
        entries = inventory(model)
        refined = refine(entries, _by_key(model, entries), selection, recipe)
        candidates = refined.candidates
        judged = [entry for entry in entries if entry.key in candidates or _is_judged(entry.parameter)]
        verdicts = {
            entry.key: judge(entry, candidates.get(entry.key, []), selection, value_problems)
            for entry in judged
        }
        self.conversions: list[Conversion] = conversions(candidates, verdicts)
        """The modules to convert."""
        refined.refuse(entries, verdicts)
        dropped = _dropped_with(self.conversions, entries)
        verdicts |= {key: Verdict.keep("dropped") for key in dropped & verdicts.keys()}
        rows = [_row(entry, verdicts[entry.key], candidates.get(entry.key, [])) for entry in judged]
        rows += _quantized_rows(model)
        rest = [entry for entry in entries if entry.key not in verdicts]
        other = _other_bytes(model, rest)
        after = other - sum(_bytes(entry.parameter) for entry in rest if entry.key in dropped)
        for conversion in self.conversions:
            after += conversion.added_bytes - sum(_bytes(buffer) for buffer in conversion.buffers)
        self.plan = Plan(tuple(rows), other, after)
        _refuse_hopeless_includes(selection, judged, verdicts)
        if strict:
            _refuse_shortfall(self.plan)


def _by_key(model: nn.Module, entries: list[Entry]) -> dict[Hashable, list[Candidate]]:
    """The candidates that each parameter is (part of) the weight of."""
    keys = {
        id(place.module._parameters[place.name]): entry.key for entry in entries for place in entry.places
    }
    found: dict[Hashable, list[Candidate]] = {}
    for candidate in candidates_of(model):
        for parameter in candidate.source.parameters:
            found.setdefault(keys[id(parameter)], []).append(candidate)
    return found


def _dropped_with(conversions: list[Conversion], entries: list[Entry]) -> set[Hashable]:
    """Keys of the parameters that no converted module will compute anything with any more."""
    ends = {
        id(parameter): conversion.module for conversion in conversions for parameter in conversion.dropped
    }
    return {
        entry.key
        for entry in entries
        if id(entry.parameter) in ends
        and all(place.layer is ends[id(entry.parameter)] for place in entry.places)
    }


def _is_judged(parameter: nn.Parameter) -> bool:
    return is_uninitialized(parameter) or parameter.dim() >= 2


def _row(entry: Entry, verdict: Verdict, candidates: list[Candidate]) -> PlanRow:
    parameter, first = entry.parameter, entry.places[0]
    lazy = is_uninitialized(parameter)
    before = 0 if lazy else _bytes(parameter)
    kind = candidates[0].kind if candidates else None
    return PlanRow(
        name=first.full_name,
        aliases=tuple(place.full_name for place in entry.places[1:]),
        module_type=float_type_of(first.layer).__name__,
        kind=kind.name if kind else None,
        tier=candidates[0].tier if candidates else None,
        shape=() if lazy else tuple(parameter.shape),
        dtype=str(parameter.dtype).removeprefix("torch."),
        bytes_before=before,
        bytes_after=_bytes_after(entry, verdict, candidates, before),
        verdict="int8" if verdict.int8 else "float",
        reason=verdict.reason,
        sentence=verdict.sentence,
        refinement=candidates[0].layout.refinement if verdict.int8 and candidates else None,
    )


def _bytes_after(entry: Entry, verdict: Verdict, candidates: list[Candidate], before: int) -> int:
    """Tied plain weights are stored once; of a computed weight's originals, the largest carries the bytes."""
    if not verdict.int8:
        return 0 if verdict.reason == "dropped" else before
    stored = [c for c in candidates if not c.source.is_plain and c.source.parameters[0] is entry.parameter]
    stored += [candidate for candidate in candidates if candidate.source.is_plain][:1]
    return sum(int8_bytes(tuple(effective_weight(c.module, c.name).shape), c.layout) for c in stored)


def _quantized_rows(model: nn.Module) -> list[PlanRow]:
    rows: dict[int, PlanRow] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for weight in module.layouts if isinstance(module, QuantizedModule) else ():
            name = f"{path}.{weight}" if path else weight
            codes = module.codes_of(weight)
            known = rows.get(id(codes))
            if known is None:
                rows[id(codes)] = _quantized_row(name, module, weight, codes)
            elif name not in (known.name, *known.aliases):
                rows[id(codes)] = replace(known, aliases=(*known.aliases, name))
    return list(rows.values())


def _quantized_row(name: str, module: QuantizedModule, weight: str, codes: Tensor) -> PlanRow:
    kind, layout = kind_of_quantized(module), module.layouts[weight]
    shape = layout.float_shape(tuple(codes.shape))
    return PlanRow(
        name=name,
        aliases=(),
        module_type=type(module).__name__,
        kind=kind.name if kind else None,
        tier=tier_of(module.float_type, kind) if kind else None,
        shape=shape,
        dtype=str(module.weight_dtype).removeprefix("torch."),
        bytes_before=codes.numel() * torch.empty((), dtype=module.weight_dtype).element_size(),
        bytes_after=int8_bytes(shape, layout),
        verdict="int8",
        reason="already_quantized",
        sentence=REASONS["already_quantized"],
        refinement=layout.refinement,
    )


def _other_bytes(model: nn.Module, entries: list[Entry]) -> int:
    counted: set[Hashable] = {entry.key for entry in entries}
    total = sum(_bytes(entry.parameter) for entry in entries)
    for module in model.modules():
        held = int8_names(module.layouts) if isinstance(module, QuantizedModule) else set()
        for name, buffer in module._buffers.items():
            if buffer is None or is_uninitialized(buffer) or tie_key(buffer) in counted:
                continue
            counted.add(tie_key(buffer))
            if name not in held:
                total += _bytes(buffer)
    return total


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _refuse_hopeless_includes(
    selection: Selection, judged: list[Entry], verdicts: dict[Hashable, Verdict]
) -> None:
    """An include pattern that converts nothing is a mistake worth hearing of."""
    for pattern in selection.include or ():
        matched = [entry for entry in judged if selection.matches(pattern, entry)]
        if any(verdicts[entry.key].int8 or verdicts[entry.key].reason == "nonfinite" for entry in matched):
            continue
        if selection.matches_quantized(pattern):
            continue
        reasons = [f"{e.places[0].full_name}: {verdicts[e.key].sentence}" for e in matched[:10]]
        why = "; ".join(reasons) or "it has no weight with two dimensions"
        raise PatternError(f"include: {show_pattern(pattern)} converts nothing ({why})")


def _refuse_shortfall(plan: Plan) -> None:
    left = [row for row in plan.rows if row.verdict == "float" and row.reason not in NO_SHORTFALL]
    if left:
        listed = "\n".join(f"  {row.name} {list(row.shape)} {row.dtype}: {row.sentence}" for row in left)
        raise CoverageError(f"strict: {len(left)} weights would stay float:\n{listed}")
