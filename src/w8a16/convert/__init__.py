"""From a float model to an int8 one and back: the plan (a verdict for each parameter), the swap, the undo."""

from w8a16.convert.inventory import biases_shared_beyond
from w8a16.convert.plan import Plan, PlanRow, plan
from w8a16.convert.probes import keeping_parameters
from w8a16.convert.recipe import EVERYTHING, Recipe, recipe_of
from w8a16.convert.source import (
    added_names,
    dropped_names,
    effective_weight,
    float_type_of,
    weight_source,
)
from w8a16.convert.swap import adopt_empty, execute, prepare, quantize
from w8a16.convert.text import grouped, size, summary
from w8a16.convert.tied_names import remembering_ties
from w8a16.convert.undo import dequantize
from w8a16.convert.verdict import REASONS

__all__ = [
    "EVERYTHING",
    "REASONS",
    "Plan",
    "PlanRow",
    "Recipe",
    "added_names",
    "adopt_empty",
    "biases_shared_beyond",
    "dequantize",
    "dropped_names",
    "effective_weight",
    "execute",
    "float_type_of",
    "grouped",
    "keeping_parameters",
    "plan",
    "prepare",
    "quantize",
    "recipe_of",
    "remembering_ties",
    "size",
    "summary",
    "weight_source",
]
