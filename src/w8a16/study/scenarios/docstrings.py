"""Questions and answers that come with Python: the first sentence of a docstring, and the rest of it.

The sources of the standard library are parsed, not imported: some modules do things on import.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from w8a16.errors import ResourceError

# Present in every Python from 3.10 on, and rich in docstrings of more than one sentence.
_PLACES = (
    "argparse",
    "asyncio",
    "concurrent",
    "configparser",
    "contextlib",
    "difflib",
    "email",
    "functools",
    "http",
    "imaplib",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "os",
    "platform",
    "shutil",
    "smtplib",
    "socket",
    "statistics",
    "subprocess",
    "threading",
    "traceback",
    "typing",
    "unittest",
    "urllib",
    "xml",
)


@lru_cache(maxsize=1)
def question_answer_pairs() -> tuple[tuple[str, str], ...]:
    """First sentence and rest of each docstring that has both, sorted.

    No two have the same first sentence, or a rest that begins alike.

    Raises:
        ResourceError: this Python comes without its sources.
    """
    found: dict[str, str] = {}
    beginnings: set[str] = set()
    for path in _files():
        for first, rest in _pairs(path):
            beginning = rest[:100].lower()
            if first not in found and beginning not in beginnings and first not in rest:
                found[first] = rest
                beginnings.add(beginning)
    if len(found) < 300:
        raise ResourceError(
            f"expected the sources of the standard library with their docstrings in "
            f"{sysconfig.get_path('stdlib')}, found {len(found)} usable docstrings; "
            "install them, or leave out the scenario text-embedding"
        )
    return tuple(sorted(found.items()))


def _files() -> Iterator[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    for place in _PLACES:
        yield from (root / place).rglob("*.py") if (root / place).is_dir() else root.glob(f"{place}.py")


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
        first, rest = " ".join(first.split()), " ".join(rest.split())
        if 30 <= len(first) <= 160 and len(rest) >= 100 and ">>>" not in rest[:200]:
            yield first, rest[:240]
