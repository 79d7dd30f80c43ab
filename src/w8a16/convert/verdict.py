"""The verdict on one parameter: int8 or float, with a reason code and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w8a16.convert.inventory import Entry, Place, is_uninitialized
from w8a16.convert.select import Selection
from w8a16.convert.source import WeightSource, effective_weight, float_type_of, weight_source
from w8a16.core import FLOAT_DTYPES, value_problem
from w8a16.layers import KINDS, LayerKind, kind_of_float

REASONS = {
    "converted": "int8 codes, one float32 scale per output channel",
    "effective_weight": "int8 codes of the effective weight; what computed it is dropped",
    "already_quantized": "already int8",
    "excluded": "excluded by the caller",
    "not_included": "not among the included",
    "unknown_kind": "no int8 layer kind for this module",
    "subclass": "a subclass with a forward of its own may use its weight in another way",
    "computed_weight": "the weight is computed in a way that is not known",
    "tied_to_float": "shares its memory with a weight that stays float: int8 would add bytes",
    "uninitialized": "a lazy weight without a shape: run the model once, then quantize",
    "dtype": "not float16, bfloat16, float32 or float64",
    "layout": "not a dense tensor",
    "tensor_subclass": "held in a tensor class of another library",
    "attribute_taken": "the module already has an attribute of a name that the int8 layer needs",
    "shape": "the weight does not have the two dimensions [N, K]",
    "nonfinite": "values without an int8 code",
    "not_smaller": "int8 and scales would not be smaller",
}
"""Every reason code and its sentence."""

CHOSEN = ("excluded", "not_included")
"""Reasons that are the caller's own wish; `strict` does not count them."""


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


@dataclass(frozen=True)
class Candidate:
    """A module of a known kind, and what its weight is made of."""

    module: nn.Module
    kind: LayerKind
    source: WeightSource


def candidate_of(module: nn.Module) -> Candidate | None:
    """The module as a candidate for conversion, if its exact class is in the table of kinds."""
    kind = kind_of_float(float_type_of(module))
    source = weight_source(module) if kind else None
    return Candidate(module, kind, source) if kind and source else None


def judge(entry: Entry, candidates: list[Candidate], selection: Selection) -> Verdict:
    """Judge one parameter; `candidates` are the modules whose weight it is (part of).

    The caller's wish comes first, then structural reasons, then ties, bytes and values: the reason
    given is the one that would remain if all later ones were removed.
    """
    if selection.excluded(entry):
        return Verdict.keep("excluded")
    if not selection.included(entry):
        return Verdict.keep("not_included")
    tensor_problem = _tensor_problem(entry.parameter)
    if tensor_problem:
        return tensor_problem
    if not candidates:
        return _no_kind(entry)
    others = [place.full_name for place in entry.places if not _feeds(place, candidates)]
    if others:
        return Verdict.keep("tied_to_float", ", ".join(others))
    for candidate in candidates:
        problem = _module_problem(candidate)
        if problem:
            return problem
    computed = [candidate.source.how for candidate in candidates if not candidate.source.is_plain]
    if computed:
        return Verdict(True, "effective_weight", f"{REASONS['effective_weight']} ({computed[0]})")
    return Verdict(True, "converted", REASONS["converted"])


def _feeds(place: Place, candidates: list[Candidate]) -> bool:
    """Whether at this place the parameter is (a part of) the weight of one of the candidates."""
    for candidate in candidates:
        if candidate.source.is_plain:
            if place.module is candidate.module and place.name == "weight":
                return True
        elif place.layer is candidate.module:
            return True
    return False


def int8_bytes(rows: int, columns: int) -> int:
    """Bytes of the codes and the float32 scales of a weight `[rows, columns]`."""
    return rows * columns + 4 * rows


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


def _no_kind(entry: Entry) -> Verdict:
    place = entry.places[0]
    float_type = float_type_of(place.layer)
    if float_type in {kind.float_type for kind in KINDS}:
        if weight_source(place.layer) is None:
            return Verdict.keep("computed_weight", place.name)
        return Verdict.keep(
            "unknown_kind", f"{place.name}, a parameter that {float_type.__name__} does not have"
        )
    if issubclass(float_type, tuple(kind.float_type for kind in KINDS)):
        return Verdict.keep("subclass", float_type.__name__)
    return Verdict.keep("unknown_kind", float_type.__name__)


def _module_problem(candidate: Candidate) -> Verdict | None:
    module = candidate.module
    taken = {*module.__dict__, *module._buffers, *module._parameters, *module._modules}
    clash = sorted(taken & {"int8_weights", "scales", "weight_dtype"})
    if clash:
        return Verdict.keep("attribute_taken", ", ".join(clash))
    weight = effective_weight(module)
    if weight.dim() != 2:
        return Verdict.keep("shape", str(list(weight.shape)))
    before = sum(parameter.numel() * parameter.element_size() for parameter in candidate.source.parameters)
    after = int8_bytes(*weight.shape)
    if after >= before:
        return Verdict.keep("not_smaller", f"{after} bytes against {before}")
    problem = value_problem(weight)
    return Verdict.keep("nonfinite", problem) if problem else None
