"""Find and open the shared library of native kernels, or say why there is none."""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path

from w8a16.errors import BackendError
from w8a16.kernels.cpu import torch_functions
from w8a16.kernels.cpu.structures import INTERFACE_VERSION, declare

FILE_NAME = {"win32": "w8a16_cpu.dll", "darwin": "libw8a16_cpu.dylib"}.get(sys.platform, "libw8a16_cpu.so")


def native() -> ctypes.CDLL:
    """The opened library; `BackendError` where `problem()` names one."""
    library, reason = _open()
    if library is None:
        raise BackendError(f"the native kernels cannot run: {reason}")
    return library


def problem() -> str | None:
    """Why there are no native kernels here, or None where there are."""
    return _open()[1]


def threads_note() -> str:
    """Whose threads the kernels use."""
    return torch_functions.threads_note()


def register_ops() -> bool:
    """Register the kernels of the ops `w8a16::..._native`; False where this torch lacks what they need."""
    return torch_functions.register_ops(native())


@functools.cache
def _open() -> tuple[ctypes.CDLL | None, str | None]:
    path = Path(__file__).parent / "lib" / FILE_NAME
    if not path.exists():
        return None, (
            f"{path.name} was not built: install from source with a C++17 compiler "
            "(pip install . shows what failed with --verbose)"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"{path.name} cannot be opened: {error}"
    library.w8a16_interface_version.restype = ctypes.c_int32
    version = library.w8a16_interface_version()
    if version != INTERFACE_VERSION:
        return None, (
            f"{path.name} has interface {version}, this w8a16 needs {INTERFACE_VERSION}: rebuild it"
        )
    declare(library)
    torch_functions.give_threads(library)
    return library, None
