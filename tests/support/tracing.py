"""Disturb the system calls of a running process with strace: fail one, or send a signal at one."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from support.writers import Trials
from support.zygote import Ended


@dataclass(frozen=True)
class Disturbed:
    """A run of which one call was disturbed, if it came so far."""

    pid: int
    ended: Ended
    happened: bool
    log: str


@functools.cache
def can_trace() -> bool:
    """Whether strace is installed and may look at our processes."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


def disturbed(trials: Trials, call: str, what: str, when: str) -> Disturbed:
    """Run the writer; `what` ("error=EIO", "signal=KILL") befalls such calls.

    `when` is the number of the call in each thread, with a plus: all from there on. Only calls on the
    input, the output, the stage and the folder around them count.
    """
    pid = trials.start(stopped=True)
    _until(lambda: _status(pid, "State").startswith("T"))
    log = trials.work.with_name("strace.log")
    paths = [option for path in _watched(trials, pid) for option in ("-P", str(path))]
    inject = f"inject=?{call}:{what}:when={when}"  # ?: not every system has every call
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace=?{call}", "-e", inject, *paths, "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    _until(lambda: _status(pid, "TracerPid") != "0" or tracer.poll() is not None)
    os.kill(pid, signal.SIGCONT)
    ended = trials.zygote.wait(pid)
    complaint = tracer.communicate()[1]
    text = log.read_text()
    assert "strace:" not in complaint, complaint
    happened = "(INJECTED)" in text or "+++ killed" in text or "--- SIGINT" in text or "--- SIGTERM" in text
    return Disturbed(pid, ended, happened, text)


def _watched(trials: Trials, pid: int) -> list[Path]:
    stage = trials.work / f".out.w8a16-{pid}.partial"
    written = {Path(name) for name in trials.complete}
    written |= {parent for name in written for parent in name.parents}
    inputs = [trials.source, *trials.source.rglob("*")]
    return [trials.work, *inputs, *(top / name for top in (stage, trials.target) for name in sorted(written))]


def _status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{field}:")).split(":")[1].strip()


def _until(condition) -> None:
    while not condition():
        time.sleep(0.002)
