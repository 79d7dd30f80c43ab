"""The ops (`torch.ops.w8a16.linear` above all) and the backends that can run them.

`reference.py` is the law in plain torch, `registry.py` chooses a backend and keeps the reasons,
`op.py` defines the ops, `gradients.py` and `transforms.py` complete them (autograd, torch.func,
autocast, vmap), `inference.py` is the short way for plain inference, and `forward.py` is the public
function on top. `cpu` holds the native kernels. `quantization.py` picks the kernel that quantizes.
"""

from w8a16.kernels import gradients, transforms  # imported for what they register
from w8a16.kernels.forward import w8_a16_forward
from w8a16.kernels.inference import apply_linear
from w8a16.kernels.op import embedding, linear, linear_input_grad
from w8a16.kernels.quantization import RowErrors, quantize_and_measure, quantize_weight
from w8a16.kernels.registry import Backend, Decision, backends, decide, select

__all__ = [
    "Backend",
    "Decision",
    "RowErrors",
    "apply_linear",
    "backends",
    "decide",
    "embedding",
    "gradients",
    "linear",
    "linear_input_grad",
    "quantize_and_measure",
    "quantize_weight",
    "select",
    "transforms",
    "w8_a16_forward",
]
