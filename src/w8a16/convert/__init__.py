"""From a float model to an int8 one and back: the plan (a verdict for each parameter), the swap, the undo."""

from w8a16.convert.plan import Plan, PlanRow, plan
from w8a16.convert.swap import adopt_empty, quantize
from w8a16.convert.undo import dequantize

__all__ = ["Plan", "PlanRow", "adopt_empty", "dequantize", "plan", "quantize"]
