"""Files by descriptor: read and write at an offset, sync, close; safe to call from several threads.

The only place that writes. Every failure, also one that only fsync or close reports, is a
`ResourceError` with the file's name. Nothing here maps files into memory: a file that is cut while it
is mapped kills the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import io
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

from w8a16.checkpoint.container.printable import as_resource_error, shown
from w8a16.errors import ResourceError

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # opening a FIFO must not hang
_SYNCABLE = os.O_RDWR if os.name == "nt" else os.O_RDONLY
_BLOCK = 1 << 20  # bytes, of a copy
_SYNC_FILE_RANGE_WRITE = 2
_MOST_AT_ONCE = 1 << 30  # bytes; macOS refuses 2 GiB and more in one call
_SEEKING = threading.Lock()  # where a descriptor's position must be moved to read or write elsewhere


def open_source(path: Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        ResourceError: it cannot be opened, or is no regular file (a folder, FIFO or device).
    """
    try:
        fd = os.open(path, os.O_RDONLY | _BINARY | _NO_WAIT)  # Python's descriptors are close-on-exec
    except OSError as error:
        raise as_resource_error(path, error) from error
    except ValueError as error:  # a name that no file can have: NUL, half of a surrogate pair
        raise ResourceError(f"{shown(path)}: {shown(str(error))}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ResourceError(f"{shown(path)}: not a regular file")
    except OSError as error:
        discard(fd)
        raise as_resource_error(path, error) from error
    return fd


def size_of(fd: int, path: Path) -> int:
    """Return the size of an open file in bytes.

    Raises:
        ResourceError: the system does not say.
    """
    try:
        return os.fstat(fd).st_size
    except OSError as error:
        raise as_resource_error(path, error) from error


def read_at(fd: int, view: memoryview, offset: int, path: Path) -> None:
    """Fill the whole of `view` (contiguous, writable) with the file's bytes from `offset` on.

    Raises:
        ResourceError: the device fails, or the file ends before.
    """
    view, read = view.cast("B"), 0
    while read < len(view):
        try:
            count = _read_some(fd, view[read : read + _MOST_AT_ONCE], offset + read)
        except OSError as error:
            raise as_resource_error(path, error) from error
        if count == 0:
            raise ResourceError(
                f"{shown(path)}: expected {len(view)} bytes at offset {offset}, read {read}; "
                "was the file changed meanwhile?"
            )
        read += count


def create(path: Path) -> int:
    """Make a new file, its mode by the umask, and return its descriptor, open for reading and writing.

    Raises:
        ResourceError: the file exists, or cannot be made.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        raise as_resource_error(path, error) from error


def write_at(fd: int, view: memoryview, offset: int, path: Path) -> None:
    """Write the whole of `view` (contiguous) at `offset`.

    Raises:
        ResourceError: the disk is full or fails.
    """
    view, written = view.cast("B"), 0
    while written < len(view):
        try:
            count = _write_some(fd, view[written : written + _MOST_AT_ONCE], offset + written)
        except OSError as error:
            raise as_resource_error(path, error) from error
        if count == 0:  # no error and no progress: never loop on it
            raise ResourceError(f"{shown(path)}: wrote {written} of {len(view)} bytes at offset {offset}")
        written += count


def start_writing(fd: int, offset: int, size: int) -> None:
    """Let the system begin to bring written bytes to the disk, so that `finish` has less to wait for.

    A hint: it promises nothing, waits for nothing, and does nothing where Linux's call is not there.
    """
    function = _sync_file_range()
    if function is not None:
        function(fd, offset, size, _SYNC_FILE_RANGE_WRITE)


def finish(fd: int, path: Path) -> None:
    """Bring a written file to the disk and close it; the descriptor is closed whatever happens.

    Raises:
        ResourceError: fsync or close failed: what was written may be lost, so the file is not to be used.
    """
    try:
        try:
            os.fsync(fd)
        except BaseException:
            discard(fd)
            raise
        os.close(fd)
    except OSError as error:
        raise as_resource_error(path, error) from error


def copy_file(source: Path, target: Path) -> int:
    """Copy a regular file to a new one, bring it to the disk, and return its size in bytes.

    Raises:
        ResourceError: the source cannot be read, or is cut meanwhile; the target exists, or cannot be
            written (then it may be there in part).
    """
    reading = open_source(source)
    try:
        size = size_of(reading, source)
        writing = create(target)
        try:
            buffer = memoryview(bytearray(min(size, _BLOCK)))
            for offset in range(0, size, _BLOCK):
                block = buffer[: size - offset]
                read_at(reading, block, offset, source)
                write_at(writing, block, offset, target)
        except BaseException:
            discard(writing)
            raise
        finish(writing, target)
        return size
    finally:
        discard(reading)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they exist, their modes by the umask.

    Raises:
        ResourceError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(path, error) from error


def sync_file(path: Path) -> None:
    """Bring a file that somebody else wrote and closed to the disk.

    Raises:
        ResourceError: it cannot be opened, or the sync failed.
    """
    try:
        fd = os.open(path, _SYNCABLE | _BINARY | _NO_WAIT)
    except OSError as error:
        raise as_resource_error(path, error) from error
    finish(fd, path)


def sync_folder(path: Path) -> None:
    """Bring a folder's entries (new names, renames) to the disk.

    Raises:
        ResourceError: the folder cannot be opened, or the sync failed.
    """
    if os.name == "nt":  # folders cannot be opened there
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise as_resource_error(path, error) from error
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync files only
            raise as_resource_error(path, error) from error
    finally:
        discard(fd)


def discard(fd: int) -> None:
    """Close a descriptor whose file was only read, or is given up; an error means nothing then."""
    with contextlib.suppress(OSError):
        os.close(fd)


@functools.cache
def _sync_file_range() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):  # a C library without it
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


def _read_some(fd: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    with _SEEKING, io.FileIO(fd, "rb", closefd=False) as file:
        file.seek(offset)
        return file.readinto(view) or 0


def _write_some(fd: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, view, offset)
    with _SEEKING:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, view)
