"""Run a command and say how long it took and how much memory it held, as seen from outside (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_BETWEEN_LOOKS = 0.2  # seconds; looking takes time from a process that uses all cores


class FailedError(Exception):
    """A command ended with an error; the message is the last line of what it said."""


@dataclass(frozen=True)
class Run:
    """One run of a command."""

    seconds: float
    processor_seconds: float
    """Of it and of those that it started and waited for."""
    peak_bytes: int
    """The most resident memory: the sum of the peaks of the process and of those that it started."""
    output: str


def run(command: Sequence[str | os.PathLike[str]], environment: dict[str, str] | None = None) -> Run:
    """Run a command to its end.

    The peak that the kernel reports of a child (`ru_maxrss`) contains the parent's memory at the time of
    the fork, so the child's own counter (VmHWM) is read while it runs; it only grows, so nothing but what
    happens in the last fifth of a second is missed.

    Raises:
        FailedError: the command failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [os.fspath(part) for part in command], stdout=out, stderr=errors, env=environment
        )
        peaks: dict[int, int] = {}
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            for pid in _family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
            time.sleep(_BETWEEN_LOOKS)
        seconds, usage = time.perf_counter() - start, ended[2]
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = (errors.read() + out.read()).strip().splitlines()
            raise FailedError(lines[-1] if lines else f"exit code {process.returncode}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, sum(peaks.values()), out.read())


def python(*arguments: str | os.PathLike[str]) -> Run:
    """Run a script or module with this interpreter."""
    return run([sys.executable, *arguments])


def memory(field: str = "VmHWM", pid: int | str = "self") -> int:
    """A figure of /proc/PID/status in bytes: VmHWM is the peak of resident memory, VmRSS is now."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that is ending has none any more


def _peak(pid: int) -> int:
    try:
        return memory("VmHWM", pid)
    except OSError:
        return 0


def _family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found
