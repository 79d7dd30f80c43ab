"""`python -m zoo`: quantize and check every architecture of the zoo."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from rich.console import Console

from zoo.catalogue import catalogue
from zoo.entry import FAMILIES
from zoo.run import run, show, show_markdown, write_json


def main() -> int:
    """Run the zoo; 1 if anything fails."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of architectures")
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--peer", metavar="NAME", help="check another library instead: see zoo/peers.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options = parser.parse_args()
    found = catalogue(options.only, options.family)
    console = Console(stderr=True)
    for line in found.missing:
        console.print(f"left out: {line}")
    if not found.entries:
        console.print("no architecture of this name")
        return 2
    module = importlib.import_module("zoo.peers" if options.peer else "zoo.checks")
    check = module.checker(options.peer) if options.peer else module.check
    results = run(found.entries, check, console)
    if options.json:
        write_json(results, options.json)
    if options.markdown:
        print(show_markdown(results))
    else:
        show(results, Console(width=None if sys.stdout.isatty() else 200))
    return int(any(result.problems for result in results))


if __name__ == "__main__":
    sys.exit(main())
