"""The structures of the C interface, field by field as in `csrc/kernels.h`."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import torch
from torch import Tensor

INTERFACE_VERSION = 7
"""What `w8a16_interface_version` must return: a library from another version of the package is refused."""

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The float dtypes of the kernels."""


class FloatVector(ctypes.Structure):
    """A vector of scales or biases; a null pointer where there is none."""

    _fields_ = (("data", c_void_p), ("dtype", c_int32))

    @classmethod
    def of(cls, vector: Tensor | None) -> FloatVector:
        """Describe a contiguous vector."""
        return cls(None, 0) if vector is None else cls(vector.data_ptr(), DTYPES[vector.dtype])


class Linear(ctypes.Structure):
    """`y = (x q^T) * scales + bias`."""

    _fields_ = (
        *(("x", c_void_p), ("x_stride", c_int64), ("q", c_void_p), ("q_stride", c_int64)),
        *(("scales", FloatVector), ("bias", FloatVector), ("y", c_void_p), ("y_stride", c_int64)),
        *(("m", c_int64), ("k", c_int64), ("n", c_int64), ("dtype", c_int32), ("wide", c_bool)),
    )


class LinearInputGrad(ctypes.Structure):
    """`dx = (dy * scales) q`."""

    _fields_ = (
        *(("dy", c_void_p), ("dy_stride", c_int64), ("q", c_void_p), ("q_stride", c_int64)),
        *(("scales", FloatVector), ("dx", c_void_p), ("dx_stride", c_int64)),
        *(("m", c_int64), ("k", c_int64), ("n", c_int64), ("dtype", c_int32)),
    )


_GROUPED = (("offsets", c_void_p), ("experts", c_int64), ("q_step", c_int64))


class GroupedLinear(ctypes.Structure):
    """`Linear` with several weights: rows `offsets[e]` to `offsets[e + 1]` belong to weight e."""

    _fields_ = (("all", Linear), *_GROUPED)


class GroupedLinearInputGrad(ctypes.Structure):
    """`LinearInputGrad` with several weights."""

    _fields_ = (("all", LinearInputGrad), *_GROUPED)


_REFINEMENT = (
    *(("groups", c_int64), ("group", c_int64), ("columns", c_void_p), ("values", c_void_p)),
    *(("outliers", c_int64), ("first_column", c_int64)),
)


class RefinedLinear(ctypes.Structure):
    """`Linear` with float32 scales of groups of columns, or with outliers."""

    _fields_ = (("all", Linear), *_REFINEMENT)


class RefinedLinearInputGrad(ctypes.Structure):
    """`LinearInputGrad` with float32 scales of groups of columns, or with outliers."""

    _fields_ = (("all", LinearInputGrad), *_REFINEMENT)


class Quantize(ctypes.Structure):
    """Codes, scales and, on request, the errors of each row of a weight."""

    _fields_ = (
        *(("w", c_void_p), ("w_stride", c_int64), ("dtype", c_int32), ("q", c_void_p)),
        *(("scales", c_void_p), ("errors", c_void_p), ("k", c_int64), ("n", c_int64)),
    )


class QuantizeResult(ctypes.Structure):
    """What happened to the rows of a weight."""

    _fields_ = (
        *(("nonfinite_rows", c_int64), ("underflow_rows", c_int64), ("zero_rows", c_int64)),
        *(("signal", c_double), ("noise", c_double), ("largest", c_float)),
    )


class Gather(ctypes.Structure):
    """`y[i] = q[indices[i]] * scales[indices[i]]`; without indices all rows, in their order."""

    _fields_ = (
        *(("indices", c_void_p), ("q", c_void_p), ("q_stride", c_int64), ("scales", FloatVector)),
        *(("y", c_void_p), ("m", c_int64), ("k", c_int64), ("dtype", c_int32)),
    )


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "interface_version": (c_int32, []),
    "use_torch_threads": (None, [c_void_p]),
    "use_openmp": (None, [c_void_p]),
    "register_ops": (c_int32, [c_void_p]),
    "variant_count": (c_int32, []),
    "variant_name": (c_char_p, [c_int32]),
    "variant_why_not": (c_char_p, [c_int32]),
    "variant_chosen": (c_int32, []),
    "variant_choose": (c_int32, [c_int32]),
    "wide_from": (c_int64, []),
    "linear": (c_int32, [c_void_p]),
    "linear_input_grad": (c_int32, [c_void_p]),
    "grouped_linear": (c_int32, [c_void_p]),
    "grouped_linear_input_grad": (c_int32, [c_void_p]),
    "refined_linear": (c_int32, [c_void_p]),
    "refined_linear_input_grad": (c_int32, [c_void_p]),
    "quantize": (None, [c_void_p, c_void_p]),
    "quantize_slice": (None, [c_void_p, c_void_p]),
    "gather": (None, [c_void_p]),
    "crc32": (c_uint32, [c_uint32, c_void_p, c_int64]),
    "read": (c_uint64, [c_void_p, c_int64]),
    "multiply_add": (c_int64, [c_int64]),
}


def declare(library: ctypes.CDLL) -> None:
    """Set the argument and result types of every function of the interface."""
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"w8a16_{name}")
        function.restype = result
        function.argtypes = arguments
