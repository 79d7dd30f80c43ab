"""The verdict on one parameter: int8 or float, with a reason code and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w8a16.convert.candidate import Candidate, cannot_change, int8_bytes
from w8a16.convert.inventory import Entry, Place, is_uninitialized
from w8a16.convert.select import Selection
from w8a16.convert.source import effective_weight, float_type_of, weight_source
from w8a16.core import FLOAT_DTYPES, value_problem
from w8a16.layers import PARAMETER, QuantizedModule, kind_of_float
from w8a16.layers.tensor_names import tensor_names

REASONS = {
    "converted": "int8 codes, one float32 scale per output channel",
    "stored": "int8 codes and scales, dequantized on use",
    "effective_weight": "int8 codes of the effective weight; what computed it is dropped",
    "already_quantized": "already int8",
    "excluded": "excluded by the caller",
    "not_included": "not among the included",
    "kind_not_asked": "not of the kinds that the caller asked for",
    "adapter": "belongs to an adapter, which is there to be trained",
    "bias": "a bias is added in float32; int8 would save next to nothing",
    "vector": "a vector in the shape of a matrix: one value for each channel",
    "computed_weight": "the weight is computed in a way that is not known",
    "compiled_code": "belongs to compiled code, which does not look its weights up by name",
    "dropped": "computes a bias: the bias of now becomes a parameter, and what computed it is dropped",
    "partly_quantized": "the module is int8 already in part: dequantize it, then quantize anew",
    "option": "the layer is set up in a way that int8 weights do not allow",
    "final_class": "the class of the module cannot be inherited from",
    "mixed_dtype": "another dtype than the larger weights of the same module",
    "tied_differently": "shared by layers that have their output channels in different dimensions",
    "tied_to_float": "shares its memory with a weight that stays float: int8 would add bytes",
    "uninitialized": "a lazy weight without a shape: run the model once, then quantize",
    "dtype": "not float16, bfloat16, float32 or float64",
    "layout": "not a dense tensor",
    "tensor_subclass": "held in a tensor class of another library",
    "attribute_taken": "the module already has an attribute of a name that the int8 layer needs",
    "shape": "the weight does not have the dimensions that its layer kind expects",
    "nonfinite": "values without an int8 code",
    "not_smaller": "int8 and scales would not be smaller",
}
"""Every reason code and its sentence."""

CHOSEN = ("excluded", "not_included", "kind_not_asked")
"""Reasons that are the caller's own wish."""
NO_SHORTFALL = (*CHOSEN, "adapter", "dropped")
"""Reasons that `strict` does not count: wished for, to be trained, or nothing that stays."""


@dataclass(frozen=True)
class Verdict:
    """`int8` or not, and why."""

    int8: bool
    reason: str
    sentence: str

    @staticmethod
    def keep(reason: str, detail: str = "") -> Verdict:
        """Stay float for `reason`."""
        return Verdict(False, reason, f"{REASONS[reason]}: {detail}" if detail else REASONS[reason])


def judge(
    entry: Entry, candidates: list[Candidate], selection: Selection, value_problems: Mapping[str, str]
) -> Verdict:
    """Judge one parameter; `candidates` are the weights that it is (part of).

    `value_problems` says by name which parameters are known to hold values without a code, for
    parameters whose values are not here.

    The caller's wish comes first, then structural reasons, then ties, bytes and values: the reason
    given is the one that would remain if all later ones were removed.
    """
    if selection.excluded(entry):
        return Verdict.keep("excluded")
    if not selection.included(entry):
        return Verdict.keep("not_included")
    adapters = [selection.adapter_part(place) for place in entry.places]
    if adapters and all(adapters):
        return Verdict.keep("adapter", str(adapters[0]))
    problem = _tensor_problem(entry.parameter)
    if problem:
        return problem
    if not candidates:
        return _no_candidate(entry)
    unwanted = sorted({c.kind.name for c in candidates if not selection.wants(c.kind.name)})
    if unwanted:
        return Verdict.keep("kind_not_asked", ", ".join(unwanted))
    if all(candidate.kind is PARAMETER for candidate in candidates):
        if _is_bias(entry):
            return Verdict.keep("bias")
        if _is_vector(effective_weight(candidates[0].module, candidates[0].name)):
            return Verdict.keep("vector")
    others = [place.full_name for place in entry.places if not _feeds(place, candidates)]
    if others:
        return Verdict.keep("tied_to_float", ", ".join(others))
    if len({candidate.layout for candidate in candidates if candidate.source.is_plain}) > 1:
        return Verdict.keep("tied_differently", ", ".join(place.full_name for place in entry.places))
    for candidate in candidates:
        problem = _candidate_problem(candidate)
        if problem:
            return problem
    known = [value_problems[p.full_name] for p in entry.places if p.full_name in value_problems]
    if known:
        return Verdict.keep("nonfinite", known[0])
    finer = next((f"; {c.layout.refinement}" for c in candidates if c.layout.refinement), "")
    computed = [candidate.source.how for candidate in candidates if not candidate.source.is_plain]
    if computed:
        return Verdict(True, "effective_weight", f"{REASONS['effective_weight']} ({computed[0]}){finer}")
    if any(candidate.tier == "storage" for candidate in candidates):
        return Verdict(True, "stored", REASONS["stored"] + finer)
    return Verdict(True, "converted", REASONS["converted"] + finer)


def _feeds(place: Place, candidates: list[Candidate]) -> bool:
    """Whether at this place the parameter is (a part of) the weight of one of the candidates."""
    for candidate in candidates:
        if candidate.source.is_plain:
            if place.module is candidate.module and place.name == candidate.name:
                return True
        elif place.layer is candidate.module:
            return True
    return False


def _is_vector(weight: Tensor) -> bool:
    return sum(size > 1 for size in weight.shape) < 2


def _is_bias(entry: Entry) -> bool:
    return all(place.name == "bias" or place.name.endswith("_bias") for place in entry.places)


def _tensor_problem(parameter: nn.Parameter) -> Verdict | None:
    if is_uninitialized(parameter):
        return Verdict.keep("uninitialized")
    if _exact_types(parameter, parameter.data) != (nn.Parameter, Tensor):
        return Verdict.keep("tensor_subclass", type(parameter).__name__)
    if parameter.layout != torch.strided:
        return Verdict.keep("layout", str(parameter.layout))
    if parameter.dtype not in FLOAT_DTYPES:
        return Verdict.keep("dtype", str(parameter.dtype))
    return None


def _exact_types(*values: object) -> tuple[type, ...]:
    return tuple(type(value) for value in values)


def _no_candidate(entry: Entry) -> Verdict:
    place = entry.places[0]
    code = cannot_change(place.module) or cannot_change(place.layer)
    if code is not None:
        return Verdict.keep("compiled_code", code)
    if _is_bias(entry):
        return Verdict.keep("bias")
    if _is_vector(entry.parameter):
        return Verdict.keep("vector")
    if isinstance(place.module, QuantizedModule):
        return Verdict.keep("partly_quantized", type(place.module).__name__)
    kind = kind_of_float(float_type_of(place.layer))
    if kind is not None and weight_source(place.layer) is None:
        return Verdict.keep("computed_weight", place.name)
    return Verdict.keep("computed_weight", f"{place.name} of {float_type_of(place.layer).__name__}")


def _candidate_problem(candidate: Candidate) -> Verdict | None:
    module, name = candidate.module, candidate.name
    taken = {*module.__dict__, *module._buffers, *module._parameters, *module._modules}
    clash = sorted(taken & {*tensor_names(name, candidate.layout), "weight_dtype", "layouts"})
    if clash:
        return Verdict.keep("attribute_taken", ", ".join(clash))
    refused = candidate.kind.quantized_type.why_not(module)
    if refused is not None:
        return Verdict.keep("option", refused)
    weight = effective_weight(module, name)
    shape = tuple(weight.shape)
    if not candidate.layout.fits(shape):
        return Verdict.keep("shape", str(list(shape)))
    before = sum(parameter.numel() * parameter.element_size() for parameter in candidate.source.parameters)
    after = int8_bytes(shape, candidate.layout)
    if after >= before:
        return Verdict.keep("not_smaller", f"{after} bytes against {before}")
    problem = value_problem(weight)
    return Verdict.keep("nonfinite", problem) if problem else None
