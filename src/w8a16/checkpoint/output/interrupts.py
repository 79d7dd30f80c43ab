"""Signals put off: a stretch of code that Ctrl-C must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def uninterrupted(*, deliver: bool = True) -> Iterator[None]:
    """Put off SIGINT, SIGTERM and SIGHUP until the block has ended.

    Handlers run in the main thread only: in any other there is nothing to put off. (A signal mask
    would not do: the system would hand the signal to a thread that does not block it.)

    Args:
        deliver: whether a signal that came meanwhile is handled afterwards, or forgotten because the
            program is on its way out already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    with ExitStack() as restored:
        for number in _ENDING:
            handler = signal.getsignal(number)
            # None: set by C code, nothing could put it back. Ignored ones stay ignored.
            if handler not in (None, signal.SIG_IGN):
                restored.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: arrived.append(number))
        yield
    for number in dict.fromkeys(arrived) if deliver else ():
        signal.raise_signal(number)
