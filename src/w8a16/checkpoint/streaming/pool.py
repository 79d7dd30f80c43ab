"""Run blocks on all cores, each thread with buffers of its own.

While one thread waits for the disk another one computes, so reading, quantizing and writing overlap
without queues between them. The calling thread only waits, so that it can be interrupted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from w8a16.checkpoint.output.interrupts import uninterrupted
from w8a16.checkpoint.streaming.blocks import Block
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.results import Result

_SECONDS_BETWEEN_REPORTS = 0.1

Done = Callable[[Block, Result], None]
"""Called in the thread that ran the block."""


def run_blocks(
    blocks: Iterable[Block],
    threads: int,
    done: Done,
    write: Callable[[], bool],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run every block; returns when all are done.

    Args:
        blocks: taken one by one, in this order.
        threads: how many run at once.
        done: gets each result.
        write: asked before each block whether it is to write.
        tick: called now and then in the calling thread, for progress.

    Raises:
        The first error of a block or of `done`. No thread runs any more then, and neither after an
        interrupt of the calling thread.
    """
    crew = _Crew(iter(blocks), done, write)
    workers = [
        threading.Thread(target=crew.work, name=f"w8a16-{number}", daemon=True) for number in range(threads)
    ]
    try:
        with uninterrupted():  # a thread whose start is cut short could not be waited for
            for worker in workers:
                worker.start()
        while not crew.finished(threads):
            tick()
    finally:
        crew.stop = True
        with uninterrupted():  # a second Ctrl-C must not leave threads behind that still write
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
    if crew.error is not None:
        raise crew.error


class _Crew:
    """What the threads share."""

    def __init__(self, blocks: Iterator[Block], done: Done, write: Callable[[], bool]) -> None:
        self.stop = False
        self.error: BaseException | None = None
        self._blocks, self._done, self._write = blocks, done, write
        self._condition = threading.Condition()
        self._left = 0

    def work(self) -> None:
        """Take blocks until there are none, something failed, or all are told to stop."""
        buffers = Buffers()
        try:
            while (block := self._next()) is not None:
                self._done(block, block.run(buffers, self._write()))
        except BaseException as error:
            with self._condition:
                self.error = self.error or error
                self.stop = True
        finally:
            with self._condition:
                self._left += 1
                self._condition.notify_all()

    def finished(self, threads: int) -> bool:
        """Wait a moment; whether every thread has left."""
        with self._condition:
            if self._left < threads:
                self._condition.wait(_SECONDS_BETWEEN_REPORTS)
            return self._left == threads

    def _next(self) -> Block | None:
        with self._condition:
            return None if self.stop else next(self._blocks, None)
