"""The ops (`torch.ops.w8a16.linear` above all) and the backends that can run them.

`reference.py` is the law in plain torch, `registry.py` chooses a backend and keeps the reasons, `op.py`
defines the linear ops, `grouped.py` those of several weights at once (a mixture of experts);
`refined.py` that of weights held better than by one scale a row; `gradients.py`,
`grouped_gradients.py`, `refined_gradients.py` and `transforms.py` complete them (autograd, torch.func,
autocast, vmap). `lookup.py` and `dequantization.py` hold the ops that give floats back. `native_ops.py`
is the way to the CPU kernels without Python, `inference.py` the short way to it for plain inference,
`forward.py` the public function on top. `quantization.py` picks the kernel that quantizes,
`checksum.py` that for checksums; `cpu` holds the kernels.
"""

from w8a16.kernels import (  # imported for what they register
    gradients,
    grouped_gradients,
    refined_gradients,
    transforms,
)
from w8a16.kernels.checksum import crc32
from w8a16.kernels.dequantization import dequantize
from w8a16.kernels.forward import w8_a16_forward
from w8a16.kernels.grouped import grouped_linear, grouped_linear_input_grad
from w8a16.kernels.inference import apply_linear
from w8a16.kernels.lookup import apply_embedding, embedding
from w8a16.kernels.op import linear, linear_input_grad
from w8a16.kernels.quantization import (
    BlockFigures,
    RowErrors,
    block_workspace,
    quantize_and_measure,
    quantize_block,
    quantize_weight,
)
from w8a16.kernels.refined import apply_refined_linear, refined_linear, refined_linear_input_grad
from w8a16.kernels.registry import Backend, Decision, backends, decide, select

__all__ = [
    "Backend",
    "BlockFigures",
    "Decision",
    "RowErrors",
    "apply_embedding",
    "apply_linear",
    "apply_refined_linear",
    "backends",
    "block_workspace",
    "crc32",
    "decide",
    "dequantize",
    "embedding",
    "gradients",
    "grouped_gradients",
    "grouped_linear",
    "grouped_linear_input_grad",
    "linear",
    "linear_input_grad",
    "quantize_and_measure",
    "quantize_block",
    "quantize_weight",
    "refined_gradients",
    "refined_linear",
    "refined_linear_input_grad",
    "select",
    "transforms",
    "w8_a16_forward",
]
