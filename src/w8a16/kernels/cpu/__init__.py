"""The native kernels: C++ for each instruction set (`csrc`), reached through one shared library.

`library.py` finds and opens it, `structures.py` mirrors its C interface, `torch_functions.py` gives it
torch's threads and dispatcher, `variants.py` chooses the instruction set, `operations.py`, `grouped.py`
and `refined.py` apply the kernels to tensors, `checksum.py` to bytes, and `probe.py` measures what the
machine could do at best.
"""

from w8a16.kernels.cpu.checksum import crc32
from w8a16.kernels.cpu.grouped import grouped_linear, grouped_linear_input_grad
from w8a16.kernels.cpu.library import problem, register_ops
from w8a16.kernels.cpu.operations import (
    dequantize,
    embedding,
    linear,
    linear_input_grad,
    note,
    quantize,
    why_not,
)
from w8a16.kernels.cpu.probe import multiply_add_rate, read_bandwidth
from w8a16.kernels.cpu.refined import refined_linear, refined_linear_input_grad
from w8a16.kernels.cpu.variants import Variant, chosen_variant, variants, wide_from

__all__ = [
    "Variant",
    "chosen_variant",
    "crc32",
    "dequantize",
    "embedding",
    "grouped_linear",
    "grouped_linear_input_grad",
    "linear",
    "linear_input_grad",
    "multiply_add_rate",
    "note",
    "problem",
    "quantize",
    "read_bandwidth",
    "refined_linear",
    "refined_linear_input_grad",
    "register_ops",
    "variants",
    "why_not",
    "wide_from",
]
