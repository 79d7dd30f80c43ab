"""Run many small pieces of work on all cores, each thread with memory of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from w8a16.checkpoint.streaming.buffers import Buffers

_Job = TypeVar("_Job")
_Outcome = TypeVar("_Outcome")
_MOST_THREADS = 16


def run_all(
    jobs: Iterable[_Job],
    run: Callable[[_Job, Buffers], _Outcome],
    done: Callable[[_Job, _Outcome], None],
) -> None:
    """Run every job; `done` gets the outcomes in the calling thread, in the order of the jobs.

    Raises:
        The first error of a job; jobs that have not begun then are given up.
    """
    own = threading.local()
    listed = list(jobs)

    def work(job: _Job) -> _Outcome:
        if not hasattr(own, "buffers"):
            own.buffers = Buffers()
        return run(job, own.buffers)

    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        for job, outcome in zip(listed, pool.map(work, listed), strict=True):
            done(job, outcome)
    finally:
        pool.shutdown(cancel_futures=True)
