"""The ops of this library as torch knows them: names and argument types.

`LIBRARY` is kept alive here: dropping it would unregister the ops.
"""

from __future__ import annotations

import torch

LIBRARY = torch.library.Library("w8a16", "DEF")
LIBRARY.define("linear(Tensor input, Tensor int8_weights, Tensor scales, Tensor? bias) -> Tensor")
LIBRARY.define("linear_input_grad(Tensor grad_output, Tensor int8_weights, Tensor scales) -> Tensor")
LIBRARY.define("embedding(Tensor indices, Tensor int8_weights, Tensor scales, ScalarType dtype) -> Tensor")
# Private, see native_linear.py. An absent bias is an undefined tensor, which Python calls None.
LIBRARY.define("linear_native(Tensor input, Tensor int8_weights, Tensor scales, Tensor bias) -> Tensor")
# It is called where there is nothing to record, so Autograd lets it pass. It must not compute there:
# fake tensors and dispatch modes come after Autograd.
LIBRARY.impl("linear_native", torch.library.fallthrough_kernel, "Autograd")
