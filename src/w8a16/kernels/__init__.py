"""The op `torch.ops.w8a16.linear` and the backends that can run it.

`reference.py` is the law in plain torch, `registry.py` chooses a backend and keeps the reasons,
`op.py` defines the op, `gradients.py` and `transforms.py` complete it (autograd, torch.func,
autocast, vmap), and `forward.py` is the public function on top of it.
"""

from w8a16.kernels import gradients, transforms  # imported for what they register
from w8a16.kernels.forward import w8_a16_forward
from w8a16.kernels.op import linear, linear_input_grad
from w8a16.kernels.registry import Backend, Decision, backends, decide, select

__all__ = [
    "Backend",
    "Decision",
    "backends",
    "decide",
    "gradients",
    "linear",
    "linear_input_grad",
    "select",
    "transforms",
    "w8_a16_forward",
]
