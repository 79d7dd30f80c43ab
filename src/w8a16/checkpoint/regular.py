"""Open files that others have written: regular files only, never waiting for anybody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from w8a16.checkpoint.printable import as_resource_error, shown
from w8a16.errors import ResourceError


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file (or a link to one) for reading in binary.

    Raises:
        ResourceError: it is no regular file, cannot be opened, or a read inside the block fails.
    """
    try:
        # Looked at before it is opened, because opening a device may do something.
        _refuse_special(path, path.stat().st_mode)
        with open(path, "rb", opener=_open_without_waiting) as file:
            _refuse_special(path, os.fstat(file.fileno()).st_mode)  # it may have been exchanged meanwhile
            yield file
    except OSError as error:
        raise as_resource_error(path, error) from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise ResourceError(f"{shown(path)}: {error}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for a writer


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ResourceError(f"{shown(path)}: not a regular file")
