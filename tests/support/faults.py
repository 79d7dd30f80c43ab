"""Make one call to the system fail: the n-th of its kind, as the system would report it."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from w8a16.checkpoint.output import rename

# Calls that have their effect and complain all the same: the kernel closes a file whose data it lost.
EFFECT_FIRST = {"close"}


@dataclass
class Fault:
    """Counts the calls of one function, and makes one of them fail."""

    name: str
    at: int = 0
    """Which call fails, from 1; 0: none."""
    code: int = errno.EIO
    lasting: bool = False
    """Whether all later calls fail as well."""
    calls: int = 0
    callers: list[str] = field(default_factory=list)
    """The function that made each call that failed."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.calls += 1
                failing = self.at and (self.calls == self.at or (self.lasting and self.calls > self.at))
            if not failing:
                return real(*arguments, **options)
            self.callers.append(sys._getframe(1).f_code.co_name)
            if self.name in EFFECT_FIRST:
                real(*arguments, **options)
            if self.name == "rename":  # our function for the system's call returns the number
                return self.code
            raise OSError(self.code, os.strerror(self.code))

        return call


@contextmanager
def fault(name: str, at: int = 0, code: int = errno.EIO, *, lasting: bool = False) -> Iterator[Fault]:
    """Within the block, the `at`-th call of `os.NAME` (or of the exclusive rename) fails with `code`."""
    made = Fault(name, at, code, lasting)
    with pytest.MonkeyPatch.context() as patch:
        place, attribute = (rename, "_exclusive") if name == "rename" else (os, name)
        patch.setattr(place, attribute, made.wrapped(getattr(place, attribute)))
        yield made
