"""Atomic output folders: written under another name beside the target, published by one rename.

The protocol, and what was weighed for it, is in docs/decisions/0013-atomic-output.md.
"""

from __future__ import annotations

import atexit
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from w8a16.checkpoint.container.disk import discard, sync_file, sync_folder
from w8a16.checkpoint.container.printable import as_resource_error, shown
from w8a16.checkpoint.output.interrupts import uninterrupted
from w8a16.checkpoint.output.leftovers import Leftover, describe, stage_names, stages_of, writer_of
from w8a16.checkpoint.output.locks import lock_folder, one_at_a_time
from w8a16.checkpoint.output.rename import rename_folder
from w8a16.errors import OutputRefusedError, ResourceError, W8A16Error, W8A16Warning

_LONGEST_NAME = 255


def check_output(source: Path | None, target: Path) -> None:
    """Refuse a target that exists, cannot be made, or overlaps the source; nothing is read or written.

    Args:
        source: the input, a file or folder; None where it is none on this machine.

    Raises:
        OutputRefusedError: what is wrong with the target, and what to do.
    """
    try:
        resolved = target.resolve()
        origin = source.resolve() if source is not None else None
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL byte
        raise OutputRefusedError(f"{shown(target)}: cannot be resolved: {error}") from error
    if origin is not None and _same(resolved, origin):
        raise OutputRefusedError(f"{shown(target)}: is the input itself; name a new folder")
    if origin is not None and any(_same(parent, origin) for parent in resolved.parents):
        place = f"lies inside the input {shown(source or '')}"
        raise OutputRefusedError(f"{shown(target)}: {place}; name a folder elsewhere")
    if origin is not None and any(_same(parent, resolved) for parent in origin.parents):
        raise OutputRefusedError(f"{shown(target)}: holds the input {shown(source or '')}; name a new folder")
    _refuse_existing(target)
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        raise OutputRefusedError(f"{shown(target)}: the name is longer than {_LONGEST_NAME} bytes")
    if not target.parent.is_dir():
        raise OutputRefusedError(f"{shown(target)}: its parent folder does not exist")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputRefusedError(f"{shown(target)}: its parent folder is not writable")


@contextmanager
def staged(
    target: Path,
    *,
    need_bytes: int = 0,
    clean: bool = False,
    report: Callable[[Leftover], None] = lambda leftover: None,
) -> Iterator[Stage]:
    """Give a new folder to write into; at the end of the block it becomes `target`, complete and synced.

    After any exception, also an interrupt, nothing is left of it, and the exception goes on. Threads
    that write into the folder must have ended, and their files be closed, when the block ends.

    Args:
        target: where the folder is to appear; `check_output` has passed it.
        need_bytes: what will be written, where known: too little space is found before the work.
        clean: remove what killed runs left beside the target; runs at work are never touched.
        report: called with every other stage of this target, before the block is entered or refused.

    Raises:
        OutputRefusedError: the target exists, or another run is writing it.
        ResourceError: too little space, or the system failed to make, sync, rename or remove the folder.
    """
    stage = Stage(target)
    found: list[Leftover] = []
    try:
        try:
            stage._claim(need_bytes, clean, found)
        finally:
            for leftover in found:
                report(leftover)
        yield stage
        stage._publish()
    except BaseException as error:
        problem = stage._remove()
        if problem is None:
            raise
        if isinstance(error, W8A16Error):
            raise error.followed_by(problem) from error
        warnings.warn(problem, W8A16Warning, stacklevel=3)
        raise
    finally:
        stage._release()


class Stage:
    """A folder on its way to its target: claimed, written by the caller, then published or removed."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target
        """Where to write; the final path once it is published."""
        self._lock: int | None = None
        self._made = False
        self._process = os.getpid()

    def _claim(self, need_bytes: int, clean: bool, found: list[Leftover]) -> None:
        """Make the folder and lock it, unless another run is at it already."""
        try:
            with one_at_a_time(self.target.parent) as alone:
                for path in stages_of(self.target):
                    found += _examine(path, self.target, remove=clean and alone)
                # After looking for stages: one that is published meanwhile is seen as one or the other.
                _refuse_existing(self.target)
                free = shutil.disk_usage(self.target.parent).free
                if free < need_bytes:
                    raise ResourceError(f"{shown(self.target)}: need {need_bytes} bytes, have {free}")
                with uninterrupted():
                    self._make()
        except W8A16Error:
            raise
        except OSError as error:
            raise as_resource_error(self.target, error) from error

    def _make(self) -> None:
        for path in stage_names(self.target):
            try:
                os.mkdir(path)  # its mode by the umask
            except FileExistsError:
                continue
            self.path, self._made = path, True
            # A second interrupt may prevent the removal before it begins: the program's end makes up for it.
            atexit.register(self._remove)
            self._lock = lock_folder(path)
            return

    def _publish(self) -> None:
        """Bring everything to the disk, then give the folder its name."""
        _sync_tree(self.path)
        try:
            rename_folder(self.path, self.target)  # interrupted just after it, nothing is left to remove
            self._made = False  # before the path changes: the target must never be taken for the stage
            self.path = self.target
        except FileExistsError as error:
            raise OutputRefusedError(
                f"{shown(self.target)}: has been made by another run meanwhile"
            ) from error
        except OSError as error:
            raise as_resource_error(self.target, error) from error
        try:
            sync_folder(self.target.parent)
        except ResourceError as error:
            lasting = f"{shown(self.target)} is complete, but may be gone after a power failure"
            raise error.followed_by(lasting) from error

    def _remove(self) -> str | None:
        """Remove the folder if it is still there; return a text about it if that fails."""
        if not self._made or os.getpid() != self._process:  # a forked child must leave it alone
            return None
        with uninterrupted(deliver=False):  # whoever interrupts again gets the first error, and no rubbish
            problem = _remove_folder(self.path)
        if problem is None:
            self._made = False
            return None
        return f"{shown(self.path)} could not be removed ({problem.strerror or problem}): remove it"

    def _release(self) -> None:
        """Unlock; a folder that could not even be tried to remove is left to the program's end."""
        if not self._made:
            atexit.unregister(self._remove)
        if self._lock is not None:
            discard(self._lock)
            self._lock = None


def _examine(path: Path, target: Path, *, remove: bool) -> list[Leftover]:
    """Refuse to go on beside a run at work; describe, and on request remove, what a killed one left."""
    try:
        lock = lock_folder(path)
    except BlockingIOError as error:
        raise OutputRefusedError(
            f"{shown(target)}: process {writer_of(path)} is writing it; wait, or name another folder"
        ) from error
    except FileNotFoundError:  # published or removed since it was listed
        return []
    leftover = describe(path, abandoned=lock is not None)
    if lock is None:
        return [leftover]
    try:
        if remove:
            shutil.rmtree(path)
            leftover = leftover.gone()
    except OSError as error:
        raise as_resource_error(path, error) from error
    finally:
        discard(lock)
    return [leftover]


def _remove_folder(path: Path) -> OSError | None:
    """Remove all of it and return None, or what prevented that twice: what was in the way may be over."""
    problem = None
    for _ in range(2):
        try:
            shutil.rmtree(path)
            return None
        except OSError as error:
            problem = error
    return problem if os.path.lexists(path) else None


def _sync_tree(top: Path) -> None:
    """Bring every file and folder below to the disk, whoever wrote it, inner ones first."""

    def refuse(error: OSError) -> None:
        raise as_resource_error(error.filename or top, error) from error

    for folder, _, names in os.walk(top, topdown=False, onerror=refuse):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise OutputRefusedError(f"{shown(target)}: exists already; remove it or name a new folder")


def _same(one: Path, other: Path) -> bool:
    """Whether two resolved paths are one place, also through bind mounts and names without case."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them does not exist
        return False
