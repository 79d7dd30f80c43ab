"""Names from files and complaints of the operating system, fit to be printed on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable

from w8a16.errors import ResourceError

_LISTED = 100


def shown(name: str | os.PathLike[str]) -> str:
    """A name as it may be printed: control and direction-changing characters are escaped.

    Example:
        >>> shown("a\\x1b[31m")
        'a\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(name))


def shown_list(names: Iterable[str]) -> str:
    """Names separated by commas; of a list that only a hostile file has, the first hundred and the count.

    Example:
        >>> shown_list(["a", "b\\n"])
        'a, b\\\\n'
    """
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(shown(name) for name in listed[:_LISTED]) + more


def as_resource_error(path: str | os.PathLike[str], error: OSError) -> ResourceError:
    """The operating system's complaint with the file's name in front; ours are passed through."""
    if isinstance(error, ResourceError):
        return error
    reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
    return ResourceError(f"{shown(path)}: {reason}")
