"""Start a program hundreds of times without importing torch each time: a process that imports, then forks.

It runs no operation of torch before it forks (threads of OpenMP would not survive a fork). Every child is
a process of its own: it can be killed, interrupted, traced, and ends through Python's usual shutdown.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    code: int
    """As in `subprocess`: negative for a signal."""
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that was printed."""
        return self.out + self.err


class Zygote:
    """The side of the tests: `start` programs, `wait` for them."""

    def __init__(self, entry: str, scratch: Path) -> None:
        """`entry` is `module:function`, called with the list of arguments in each child."""
        self._scratch = scratch
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from support.zygote import serve; serve()", entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        )
        assert self._answer() == "ready"

    def start(self, *arguments: object, stopped: bool = False) -> int:
        """Run the program and return its process id; `stopped` lets it wait for SIGCONT first."""
        return int(self._ask("start", [str(argument) for argument in arguments], stopped))

    def wait(self, pid: int) -> Ended:
        code = int(self._ask("wait", pid))
        out, err = (self._scratch / f"{pid}.{name}" for name in ("out", "err"))
        return Ended(code, out.read_text(), err.read_text())

    def run(self, *arguments: object) -> Ended:
        return self.wait(self.start(*arguments))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, *request: object) -> object:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([*request, str(self._scratch)]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> object:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def serve() -> None:
    """The side of the process: import, then fork on request until the input ends."""
    module, _, name = sys.argv[1].partition(":")
    program = getattr(importlib.import_module(module), name)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request, *rest = json.loads(line)
        if request == "wait":
            status = os.waitpid(rest[0], 0)[1]
            print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
            continue
        print(json.dumps(_fork(program, *rest)), flush=True)


Program = Callable[[list[str]], int]


def _fork(program: Program, arguments: list[str], stopped: bool, scratch: str) -> int:
    """Return the child's id once a signal that it gets ends it properly."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(scratch)
        _run(program, arguments, stopped, writing)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return pid


def _become(scratch: str) -> None:
    """Take streams of its own, and handlers for the signals, as a command line has them."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{scratch}/{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _run(program: Program, arguments: list[str], stopped: bool, ready: int) -> NoReturn:
    """End as Python does, but for the teardown of torch's modules, which takes a second."""
    try:
        os.write(ready, b"!")
        os.close(ready)
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        code = program(arguments)
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
