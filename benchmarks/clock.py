"""Which time a benchmark counts: that of the clock, or what the processor spent on this thread.

Beside other programs the first says how long one waits, and little about the layer. The second leaves
out the waiting, but only one thread can be counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options --threads and --processor-time."""
    parser.add_argument("--threads", type=int, help="default: torch's own number")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the time of one thread on the processor: for machines that others use too",
    )


def set_up(options: argparse.Namespace) -> Callable[[], float]:
    """Set the number of threads and return the clock that the options ask for."""
    if options.processor_time:
        if options.threads not in (None, 1):
            raise SystemExit("--processor-time counts one thread, not --threads " + str(options.threads))
        options.threads = 1
    if options.threads:
        torch.set_num_threads(options.threads)
    return time.thread_time if options.processor_time else time.perf_counter


def note(options: argparse.Namespace) -> str:
    """What the figures are, for below a table."""
    return "Medians of processor time" if options.processor_time else "Medians"
