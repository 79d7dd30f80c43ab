"""The ops of this library as torch knows them: names and argument types.

`LIBRARY` is kept alive here: dropping it would unregister the ops.
"""

from __future__ import annotations

import torch

LIBRARY = torch.library.Library("w8a16", "DEF")
LIBRARY.define("linear(Tensor input, Tensor int8_weights, Tensor scales, Tensor? bias) -> Tensor")
LIBRARY.define("linear_input_grad(Tensor grad_output, Tensor int8_weights, Tensor scales) -> Tensor")
LIBRARY.define("embedding(Tensor indices, Tensor int8_weights, Tensor scales, ScalarType dtype) -> Tensor")
LIBRARY.define("dequantize(Tensor int8_weights, Tensor scales, ScalarType dtype) -> Tensor")
LIBRARY.define(
    "grouped_linear(Tensor input, Tensor int8_weights, Tensor scales, Tensor? bias, Tensor offsets) -> Tensor"
)
LIBRARY.define(
    "grouped_linear_input_grad(Tensor grad_output, Tensor int8_weights, Tensor scales, Tensor offsets)"
    " -> Tensor"
)
LIBRARY.define(
    "refined_linear(Tensor input, Tensor int8_weights, Tensor scales, Tensor? bias, Tensor? outlier_columns,"
    " Tensor? outlier_values) -> Tensor"
)
LIBRARY.define(
    "refined_linear_input_grad(Tensor grad_output, Tensor int8_weights, Tensor scales,"
    " Tensor? outlier_columns, Tensor? outlier_values) -> Tensor"
)
# Private, see native_ops.py. An absent bias is an undefined tensor, which Python calls None; a dtype is its
# number in the table of the native kernels.
LIBRARY.define("linear_native(Tensor input, Tensor int8_weights, Tensor scales, Tensor bias) -> Tensor")
LIBRARY.define(
    "grouped_linear_native(Tensor input, Tensor int8_weights, Tensor scales, Tensor bias, Tensor offsets)"
    " -> Tensor"
)
LIBRARY.define(
    "refined_linear_native(Tensor input, Tensor int8_weights, Tensor scales, Tensor bias,"
    " Tensor outlier_columns, Tensor outlier_values) -> Tensor"
)
LIBRARY.define("embedding_native(Tensor indices, Tensor int8_weights, Tensor scales, int dtype) -> Tensor")
LIBRARY.define("dequantize_native(Tensor int8_weights, Tensor scales, int dtype) -> Tensor")
# They are called where there is nothing to record, so Autograd lets them pass. They must not compute
# there: fake tensors and dispatch modes come after Autograd.
for _name in (
    *("linear_native", "grouped_linear_native", "refined_linear_native"),
    *("embedding_native", "dequantize_native"),
):
    LIBRARY.impl(_name, torch.library.fallthrough_kernel, "Autograd")
