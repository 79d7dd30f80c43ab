"""The arithmetic of int8 weights: codes, scales and their proven bounds. Needs torch only."""

from w8a16.core.bounds import (
    HALF_STEP_SLACK,
    error_in_half_steps,
    half_step_bound,
    output_error_bound,
    output_tolerance,
)
from w8a16.core.outliers import Outliers, add_outliers, take_outliers
from w8a16.core.weights import (
    FLOAT_DTYPES,
    SMALLEST_SCALE,
    QuantizedWeight,
    codes_of_row,
    dequantize_weight,
    quantize_weight,
    scale_of_row,
    value_problem,
)

__all__ = [
    "FLOAT_DTYPES",
    "HALF_STEP_SLACK",
    "SMALLEST_SCALE",
    "Outliers",
    "QuantizedWeight",
    "add_outliers",
    "codes_of_row",
    "dequantize_weight",
    "error_in_half_steps",
    "half_step_bound",
    "output_error_bound",
    "output_tolerance",
    "quantize_weight",
    "scale_of_row",
    "take_outliers",
    "value_problem",
]
