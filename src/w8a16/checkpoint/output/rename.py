"""Rename without replacing: of several that give one name to different folders, exactly one succeeds."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

# What a kernel or file system answers that does not know the call or the flag.
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def rename_folder(old: Path, new: Path) -> None:
    """Give a folder a name that nothing has.

    Where the system has no call for it (some network file systems), the plain rename must do: it
    refuses a file, a link and a folder that holds anything; only an empty folder that appears in the
    last moment would be replaced.

    Raises:
        FileExistsError: something has the name.
        OSError: any other failure of the rename.
    """
    if _exclusive is not None:
        code = _exclusive(os.fsencode(old), os.fsencode(new))
        if code == 0:
            return
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), os.fspath(new))  # Python makes it a FileExistsError
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(new))
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno in _TAKEN:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(new)) from error
        raise


def _find_exclusive() -> Callable[[bytes, bytes], int] | None:
    """The system's call as a function that returns 0 or the error number; None where there is none."""
    name, before, flag = {
        "linux": ("renameat2", (-100, -100), 1),  # AT_FDCWD, RENAME_NOREPLACE
        "darwin": ("renamex_np", (), 4),  # RENAME_EXCL
    }.get(sys.platform, ("", (), 0))
    library = ctypes.CDLL(None, use_errno=True) if name else None
    call = getattr(library, name, None)
    if call is None:
        return None

    def rename(old: bytes, new: bytes) -> int:
        paths = (before[0], old, before[1], new) if before else (old, new)
        return ctypes.get_errno() if call(*paths, flag) else 0

    return rename


_exclusive = _find_exclusive()
