"""What an int8 model holds: its bytes, how much of it is int8, and what stayed float and why."""

from __future__ import annotations

from w8a16.convert import Plan
from w8a16.layers import QuantizedModule
from w8a16.study.compare.sides import Sides, TwoModels

_LEFT_OUT = "could be int8, and was left out when the model was quantized"


def model_name(sides: Sides) -> str:
    """The class of the float model."""
    if isinstance(sides, TwoModels):
        return type(sides.reference).__name__
    model = sides.quantized
    float_type = model.float_type if isinstance(model, QuantizedModule) else type(model)
    return getattr(float_type, "adapted_from", float_type).__name__


def bytes_now(plan: Plan) -> int:
    """Bytes of the model as it is; `plan` is that of the quantized model."""
    held = (row.bytes_after if _is_int8(row.reason) else row.bytes_before for row in plan.rows)
    return plan.other_bytes + sum(held)


def int8_coverage(plan: Plan) -> float:
    """Share of the bytes of all matrix-like weights, counted as float, that are int8."""
    total = sum(row.bytes_before for row in plan.rows)
    return sum(row.bytes_before for row in plan.rows if _is_int8(row.reason)) / total if total else 0.0


def kept_float(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Weights that are not int8, each with the reason."""
    return tuple(
        (row.name, _LEFT_OUT if row.verdict == "int8" else row.sentence)
        for row in plan.rows
        if not _is_int8(row.reason)
    )


def _is_int8(reason: str) -> bool:
    return reason == "already_quantized"
