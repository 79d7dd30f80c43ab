"""Advisory locks on folders, which end with the process that holds them, however it ends.

A folder is locked through a descriptor of its own, so no lock file is ever left behind. Not every
system has such locks: Windows has none, and network file systems often refuse them on folders. Then
the answer is None, "unknown", and the caller does what is safe without them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from w8a16.checkpoint.container.disk import discard

if sys.platform != "win32":
    import fcntl

_PATIENCE = 5.0  # seconds: what is done under such a lock takes milliseconds
_PAUSE = 0.01


def lock_folder(folder: Path) -> int | None:
    """Lock a folder and return the descriptor that holds the lock (close it to unlock), None if unknown.

    Raises:
        BlockingIOError: another process, or another descriptor of this one, holds it.
        FileNotFoundError: the folder is gone.
    """
    if sys.platform == "win32":
        return None
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise
    except OSError:  # a folder that may be written but not read
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        discard(fd)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return fd


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[bool]:
    """Wait for the lock of a folder, hold it, and say whether it is held.

    It is not where locks do not work, or where somebody holds it for long (`flock FOLDER COMMAND` in a
    shell): the caller then goes on without.
    """
    give_up = time.monotonic() + _PATIENCE
    fd = None
    while True:
        try:
            fd = lock_folder(folder)
            break
        except BlockingIOError:
            if time.monotonic() > give_up:
                break
            time.sleep(_PAUSE)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            discard(fd)
