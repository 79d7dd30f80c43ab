"""Run the command line: errors become one message and an exit code, never a traceback (but for --debug).

Exit codes: 0 ok, 1 a bug of ours, 2 usage, 3 bad input, 4 output refused, 5 I/O or resources,
130 interrupted, 143 terminated, 129 hung up.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from w8a16.errors import W8A16Error


def main() -> NoReturn:
    """Entry point of `w8a16` and `python -m w8a16`."""
    from w8a16.cli.app import app

    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)  # the terminal was closed; nohup has it ignored
    sys.exit(_run(app))


def _run(app: object) -> int:
    import typer
    from typer.main import get_command

    # Newer typer carries its own click, older ones use the package: find the class either way.
    usage_error: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    try:
        result = get_command(app).main(prog_name="w8a16", standalone_mode=False)  # type: ignore[arg-type]
        code = result if isinstance(result, int) else 0
        # Some versions of typer turn an interrupt into this code, others raise.
        return _fail("interrupted", "Interrupted", 130) if code == 130 else code
    except usage_error as error:
        message = error.format_message()
        # Called without arguments: the help text has been printed, there is nothing to add.
        return _fail(f"{message}\nTry 'w8a16 --help'.", "UsageError", 2) if message else 2
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", "Interrupted", 130)
    except W8A16Error as error:
        return _fail(str(error), type(error).__name__, error.exit_code)
    except MemoryError:
        return _fail("out of memory", "ResourceError", 5)
    except OSError as error:
        return _fail(str(error), "ResourceError", 5)
    except Exception as error:
        return _fail(f"internal error, please report it: {error!r} (--debug shows where)", "InternalError", 1)


def _fail(message: str, kind: str, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    if "--json" in sys.argv:
        print(json.dumps({"error": {"type": kind, "message": message, "exit_code": code}}))
    else:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    return code


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # unwinds the stack, so that unfinished output is removed
