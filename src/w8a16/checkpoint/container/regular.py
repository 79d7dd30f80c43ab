"""Regular files that others have written, as file objects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from w8a16.checkpoint.container.disk import open_source
from w8a16.checkpoint.container.printable import as_resource_error


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file (or a link to one) for reading in binary; never waits for a FIFO's writer.

    Raises:
        ResourceError: it is no regular file, cannot be opened, or a read inside the block fails.
    """
    try:
        with os.fdopen(open_source(path), "rb") as file:
            yield file
    except OSError as error:
        raise as_resource_error(path, error) from error
