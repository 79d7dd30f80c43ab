"""From verdicts to work: which modules are converted, to which class, and which weights they share."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w8a16.convert.candidate import Candidate
from w8a16.convert.source import added_names, dropped_parameters, float_type_of
from w8a16.convert.verdict import Verdict
from w8a16.layers import PARAMETER, QuantizedModule, anchor_of, derived_class


@dataclass(frozen=True)
class Conversion:
    """One module, its int8 class, and the weights that become int8, each with the key that ties share."""

    module: nn.Module
    quantized_type: type[QuantizedModule]
    weights: tuple[tuple[Candidate, Hashable], ...]
    dtype: torch.dtype

    @property
    def float_bytes(self) -> int:
        """Bytes of the float parameters that go."""
        return sum(p.numel() * p.element_size() for c, _ in self.weights for p in c.source.parameters)

    @property
    def dropped(self) -> list[nn.Parameter]:
        """Parameters that compute something else than the weights, such as a bias; they go too."""
        return dropped_parameters(self.module, self._names)

    @property
    def added_bytes(self) -> int:
        """Bytes of the parameters that take the place of what was computed."""
        added = added_names(self.module, self._names).values()
        return sum(value.numel() * value.element_size() for value in added)

    @property
    def _names(self) -> list[str]:
        return [candidate.name for candidate, _ in self.weights]

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        """Buffers of the machinery that computed the weights; they go too."""
        return tuple(buffer for candidate, _ in self.weights for buffer in candidate.source.buffers)


def conversions(
    candidates: dict[Hashable, list[Candidate]], verdicts: dict[Hashable, Verdict]
) -> list[Conversion]:
    """Group what is to be int8 by module, after making the verdicts agree with each other.

    A weight made of several parameters is converted only if all of them may be; tied weights only
    together; and a module has one dtype and one class.
    """
    while _agree(candidates, verdicts):
        pass
    return [_conversion(group) for group in _by_module(candidates, verdicts).values()]


def _agree(candidates: dict[Hashable, list[Candidate]], verdicts: dict[Hashable, Verdict]) -> bool:
    """Turn verdicts that cannot be carried out; return whether there were any."""
    return (
        _agree_on_parts(candidates, verdicts)
        or _agree_on_dtypes(candidates, verdicts)
        or _agree_on_classes(candidates, verdicts)
    )


def _agree_on_parts(candidates: dict[Hashable, list[Candidate]], verdicts: dict[Hashable, Verdict]) -> bool:
    keys_of: dict[int, list[Hashable]] = {}
    for key, group in candidates.items():
        for candidate in group:
            keys_of.setdefault(id(candidate), []).append(key)
    changed = False
    for keys in keys_of.values():
        kept = [verdicts[key] for key in keys if not verdicts[key].int8]
        if kept and len(kept) < len(keys):
            verdicts.update(dict.fromkeys(keys, kept[0]))
            changed = True
    return changed


def _agree_on_dtypes(candidates: dict[Hashable, list[Candidate]], verdicts: dict[Hashable, Verdict]) -> bool:
    for group in _by_module(candidates, verdicts).values():
        sizes: dict[torch.dtype, int] = {}
        for candidate, _ in group:
            dtype = candidate.source.parameters[0].dtype
            sizes[dtype] = sizes.get(dtype, 0) + candidate.source.parameters[0].numel()
        main = max(sizes, key=lambda dtype: sizes[dtype])
        for candidate, key in group:
            dtype = candidate.source.parameters[0].dtype
            if dtype != main:
                verdicts[_entry_key(candidates, candidate, key)] = Verdict.keep("mixed_dtype", str(dtype))
                return True
    return False


def _agree_on_classes(candidates: dict[Hashable, list[Candidate]], verdicts: dict[Hashable, Verdict]) -> bool:
    for group in _by_module(candidates, verdicts).values():
        try:
            _conversion(group)
        except TypeError as error:
            for candidate, key in group:
                verdicts[_entry_key(candidates, candidate, key)] = Verdict.keep("final_class", str(error))
            return True
    return False


def _entry_key(candidates: dict[Hashable, list[Candidate]], candidate: Candidate, tie: Hashable) -> Hashable:
    if tie in candidates:
        return tie
    return next(key for key, group in candidates.items() if any(c is candidate for c in group))


def _by_module(
    candidates: dict[Hashable, list[Candidate]], verdicts: dict[Hashable, Verdict]
) -> dict[int, list[tuple[Candidate, Hashable]]]:
    groups: dict[int, dict[str, tuple[Candidate, Hashable]]] = {}
    for key, verdict in verdicts.items():
        for candidate in candidates.get(key, []) if verdict.int8 else []:
            # Computed weights are not shared: equal originals may pass through different machinery.
            tie = key if candidate.source.is_plain else id(candidate)
            groups.setdefault(id(candidate.module), {}).setdefault(candidate.name, (candidate, tie))
    return {module: list(weights.values()) for module, weights in groups.items()}


def _conversion(group: list[tuple[Candidate, Hashable]]) -> Conversion:
    module = group[0][0].module
    float_type = float_type_of(module)
    names = tuple(candidate.name for candidate, _ in group)
    own = [candidate.kind for candidate, _ in group if candidate.kind is not PARAMETER]
    kind = own[0] if own else PARAMETER
    anchor = anchor_of(float_type, kind) if own else nn.Module
    quantized_type = derived_class(kind.quantized_type, anchor, float_type, names)
    return Conversion(module, quantized_type, tuple(group), group[0][0].source.parameters[0].dtype)
