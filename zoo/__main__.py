"""`python -m zoo`: quantize and check every architecture of the zoo."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from rich.console import Console

from zoo.catalogue import catalogue
from zoo.entry import FAMILIES
from zoo.page import read_results, write_page
from zoo.result import Result
from zoo.run import run, show, show_markdown, write_json


def main() -> int:
    """Run the zoo; 1 if anything fails."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of architectures")
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--peer", metavar="NAME", help="check another library instead: see zoo/peers.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the report as a page")
    parser.add_argument("--results", type=Path, metavar="FILE", help="run nothing: read what --json wrote")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        nargs="+",
        default=[],
        help="for --write: what --peer NAME --json NAME.json wrote",
    )
    options = parser.parse_args()
    if options.results:
        write_page(read_results(options.results), _peers(options.beside), options.write)
        return 0
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
    if options.write:
        write_page(results, _peers(options.beside), options.write)
    if options.markdown:
        print(show_markdown(results))
    else:
        show(results, Console(width=None if sys.stdout.isatty() else 200))
    return int(any(result.problems for result in results))


def _peers(files: list[Path]) -> dict[str, list[Result]]:
    return {file.stem: read_results(file) for file in files}


if __name__ == "__main__":
    sys.exit(main())
