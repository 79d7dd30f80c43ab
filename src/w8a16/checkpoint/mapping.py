"""Map tensors from their files instead of reading them: nothing is copied, pages come when they are used.

A model is there at once, several processes share its pages, and the system drops them when memory is
short. In return the files must stay as they are while the model lives: a mapped file that is cut kills
the process (SIGBUS), and one that is overwritten changes the weights. So this is for the caller to ask
for; `reading.py` does not depend on the files once it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from w8a16.checkpoint.container.disk import discard
from w8a16.checkpoint.container.header import Header, TensorInfo, open_again
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.errors import ResourceError


def map_tensors(shards: Shards, take: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """Map every file, and return what `take` makes of each of its tensors; arguments as `read_tensors`.

    Tensors are private: what is written into them never reaches the file.

    Raises:
        ResourceError: a file cannot be mapped, or was exchanged after its header was read.
    """
    state = {}
    for header in shards.headers:
        storage = _map(header)
        for name, info in header.tensors.items():
            state[name] = take(name, _tensor(storage, info))
    return state


def _map(header: Header) -> torch.UntypedStorage:
    discard(open_again(header))  # still the same file
    size = header.identity[2]
    try:
        path: str = os.fspath(header.path)
        mapped: Any = torch.UntypedStorage.from_file(path, shared=False, nbytes=size)
    except (RuntimeError, UnicodeError) as error:
        raise ResourceError(f"{shown(header.path)}: cannot be mapped: {error}") from error
    storage: torch.UntypedStorage = mapped
    return storage


def _tensor(storage: torch.UntypedStorage, info: TensorInfo) -> Tensor:
    if info.size == 0:
        return torch.empty(info.shape, dtype=info.dtype, device="cpu")
    everything = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)
    raw = everything[info.start : info.start + info.size]
    if info.start % info.dtype.itemsize:  # foreign files may begin anywhere
        raw = raw.clone()
    return raw.view(info.dtype).view(info.shape)
