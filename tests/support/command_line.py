"""`w8a16 quantize` as a zygote runs it: all is imported before the fork, no operation of torch has run."""

from __future__ import annotations

import contextlib
import io
import sys

import rich._emoji_codes  # noqa: F401  # imported when the first text is printed

from w8a16.cli import progress, quantize, run  # noqa: F401


def main(arguments: list[str]) -> int:
    """Called with SRC, DST and options; ends as the command does."""
    sys.argv = ["w8a16", "quantize", "--by-name", *arguments]
    run.main()


# Once in vain: typer imports much of what it needs when it parses the first command line.
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
    main(["nothing here", "nothing there"])
