"""What the native library needs of the loaded torch: its threads and its dispatcher.

Both are taken from torch's stable C interface by name, at run time: the library is built without
torch, and one build serves every version of torch that exports these names.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from ctypes import c_void_p
from typing import Any

import torch

# In the order of the structs TorchThreads and OpenMp (csrc/threads.h) and TorchFunctions (csrc/torch_ops.h).
_TORCH_THREADS = ("torch_parallel_for", "torch_get_num_threads")  # torch 2.10 and newer
_OPENMP = ("GOMP_parallel", "omp_get_max_threads", "omp_in_parallel")  # what an older torch on Linux runs on
_DISPATCHER = (
    "aoti_torch_dtype_float32",
    "aoti_torch_dtype_bfloat16",
    "aoti_torch_dtype_float16",
    "aoti_torch_dtype_int8",
    "aoti_torch_dtype_int32",
    "aoti_torch_dtype_int64",
    "aoti_torch_device_type_cpu",
    "aoti_torch_is_defined",
    "aoti_torch_get_dtype",
    "aoti_torch_get_dim",
    "aoti_torch_get_sizes",
    "aoti_torch_get_strides",
    "aoti_torch_get_data_ptr",
    "aoti_torch_empty_strided",
    "aoti_torch_new_uninitialized_tensor",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_library_init_impl",
    "aoti_torch_library_impl",
)


def give_threads(library: ctypes.CDLL) -> None:
    """Let the kernels run on torch's own threads, by its own loop or by the OpenMP runtime below it."""
    if table := _table(_TORCH_THREADS):
        library.w8a16_use_torch_threads(table)
    elif table := _table(_OPENMP):
        library.w8a16_use_openmp(table)


def threads_note() -> str:
    """Whose threads the kernels use, for people."""
    if _table(_TORCH_THREADS):
        return "on torch's threads"
    if _table(_OPENMP):
        return "on torch's OpenMP threads"
    return f"on one thread, for torch {torch.__version__} does not lend its own (2.10 and newer do)"


def register_ops(library: ctypes.CDLL) -> bool:
    """Register the kernels of the native ops; False where this torch lacks a function."""
    table = _table(_DISPATCHER)
    return table is not None and bool(library.w8a16_register_ops(table))


def _table(names: tuple[str, ...]) -> Any:
    """The addresses of functions of the loaded torch, or None where one is missing."""
    addresses = [_address(name) for name in names]
    return (c_void_p * len(addresses))(*addresses) if all(addresses) else None


def _address(name: str) -> int | None:
    library = _torch_library()
    if library is None or not hasattr(library, name):
        return None
    return ctypes.cast(getattr(library, name), c_void_p).value


@functools.cache
def _torch_library() -> ctypes.CDLL | None:
    name = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    path = os.path.join(os.path.dirname(torch.__file__), "lib", name)
    try:
        return ctypes.CDLL(path)  # already loaded: this only looks it up
    except OSError:
        return None  # a torch that is built into something else: no threads, no ops, still right
