"""Builders for checkpoint tests: raw safetensors files, edited headers, and models to compare to the bit."""

from __future__ import annotations

import hashlib
import json
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import w8a16
from w8a16.errors import CheckpointError


class Block(nn.Module):
    """A bit of everything: int8 weights, an embedding, a norm, and buffers in and out of the state dict."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 32, dtype=dtype)
        self.first = nn.Linear(32, 64, dtype=dtype)
        self.norm = nn.LayerNorm(64, dtype=dtype)
        self.second = nn.Linear(64, 8, bias=False, dtype=dtype)
        self.register_buffer("counter", torch.tensor(7))
        self.register_buffer("positions", torch.arange(4.0), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.first(self.embedding(tokens)) * (1 + self.positions.sum().to(self.norm.weight.dtype))
        return self.second(self.norm(hidden))


TOKENS = torch.tensor([[0, 3, 15], [1, 1, 2]])
"""An input for `Block`."""


def saved_block(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Path]:
    """A quantized `Block` and its file."""
    model = w8a16.quantize(Block(dtype))
    return model, w8a16.save(model, folder / "block.safetensors")


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """A skeleton: the model without memory."""
    with torch.device("meta"):
        return build()


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor, so that NaN equals NaN and -0.0 differs from 0.0."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def every_tensor(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers under all their names, also those outside the state dict."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return dict(named)


def assert_same_model(model: nn.Module, expected: nn.Module) -> None:
    """Same classes, names, dtypes and bits, buffers outside the state dict included."""
    assert [(n, type(m)) for n, m in model.named_modules()] == [
        (n, type(m)) for n, m in expected.named_modules()
    ]
    found, wanted = every_tensor(model), every_tensor(expected)
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert not found[name].is_meta, name
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


class Untouched:
    """Remembers a model, to prove later that it is the same: objects, classes, flags, dtypes and bits."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = self._describe()
        self._tensors = every_tensor(model)
        self._bits = {name: None if t.is_meta else bits(t) for name, t in self._tensors.items()}

    def check(self) -> None:
        assert self._describe() == self._modules
        now = every_tensor(self._model)
        assert list(now) == list(self._tensors)
        for name, tensor in self._tensors.items():
            assert now[name] is tensor, name
            assert (None if tensor.is_meta else bits(tensor)) == self._bits[name], name

    def _describe(self) -> list[tuple[str, nn.Module, type, bool, list[str]]]:
        named = self._model.named_modules(remove_duplicate=False)
        return [(n, m, type(m), m.training, sorted(m.__dict__)) for n, m in named]


def refusal(file: Path, model: nn.Module | None = None) -> str:
    """What loading says about a file, after its name; the model (a `Block`) is untouched."""
    target = Block() if model is None else model
    untouched = Untouched(target)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(target, file)
    untouched.check()
    name, _, text = str(caught.value).partition(": ")
    assert name == str(file)
    return text


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    """A safetensors file with this header, right or wrong: bytes and texts as they are, the rest as JSON."""
    text = header if isinstance(header, (bytes, str)) else json.dumps(header)
    head = text.encode() if isinstance(text, str) else text
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def read_raw(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a good file as plain data, and the bytes after it."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Rewrite a file with a changed header; `change` edits it in place."""
    header, data = read_raw(path)
    change(header)
    return write_raw(path, header, data)


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Rewrite a file with a changed manifest; `change` edits it in place, or returns the new text."""

    def on_header(header: dict[str, Any]) -> None:
        manifest = json.loads(header["__metadata__"]["w8a16"])
        text = change(manifest)
        header["__metadata__"]["w8a16"] = text if isinstance(text, str) else json.dumps(manifest)

    return edit_header(path, on_header)


def change_config(folder: Path, **fields: Any) -> None:
    """Set fields of config.json; None removes one."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change_weights(folder: Path, **tensors: Tensor | None) -> None:
    """Set tensors of model.safetensors, `__` for `.` in names; None removes one."""
    file = folder / "model.safetensors"
    state = load_file(file) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({n: t for n, t in state.items() if t is not None}, file, metadata={"format": "pt"})


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@contextmanager
def not_hanging(seconds: int = 60) -> Iterator[None]:
    """Turn a hang (a read from a FIFO, an endless loop) into a failure."""

    def on_alarm(number: int, frame: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
