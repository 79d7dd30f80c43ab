"""The checkpoints that are quantized in benchmarks/checkpoint.py, written fast and in little memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

Shape = tuple[int, ...]
_NOISE = 32 << 20  # random numbers that all tensors are cut from


def llama(folder: Path, size: int, files: int, *, zeros: bool = False) -> int:
    """Write a Llama of about `size` bytes of bfloat16, with the config of its class; return those bytes.

    Random normal weights; or zeros that take no space on the disk, where only memory is measured.
    """
    config = _config(size)
    torch.manual_seed(0)
    noise = None if zeros else torch.randn(_NOISE).mul_(0.02).bfloat16().view(torch.int16).numpy().tobytes()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return _write_files(folder, _llama_tensors(config), files, noise)


def one_tensor(folder: Path, size: int) -> int:
    """One weight of `size` bytes of bfloat16, zeros that take no space on the disk."""
    folder.mkdir()
    rows = size // 2 // 8192
    return _write_files(folder, {"layer.weight": (rows, 8192)}, 1, None)


def many_tensors(folder: Path, tensors: int, files: int) -> int:
    """Small tensors, for the time that headers and an index take."""
    folder.mkdir()
    shapes = {f"model.layers.{i // 10}.part{i % 10}.weight": (2, 2) for i in range(tensors)}
    return _write_files(folder, shapes, files, None)


def _config(size: int) -> dict[str, object]:
    small = size < 600 << 20
    hidden, intermediate, vocabulary, heads = (512, 1408, 8000, 8) if small else (2048, 5632, 32000, 32)
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 8,
        "num_hidden_layers": 1,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    fixed = _bytes(_llama_tensors(config | {"num_hidden_layers": 0}))
    layer = _bytes(_llama_tensors(config)) - fixed
    return config | {"num_hidden_layers": max(1, round((size - fixed) / layer))}


def _llama_tensors(config: dict[str, object]) -> dict[str, Shape]:
    def number(name: str) -> int:
        value = config[name]
        assert isinstance(value, int)
        return value

    hidden, intermediate = number("hidden_size"), number("intermediate_size")
    narrow = hidden * number("num_key_value_heads") // number("num_attention_heads")
    tensors: dict[str, Shape] = {"model.embed_tokens.weight": (number("vocab_size"), hidden)}
    for i in range(number("num_hidden_layers")):
        layer = {
            "input_layernorm": (hidden,),
            "mlp.down_proj": (hidden, intermediate),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "post_attention_layernorm": (hidden,),
            "self_attn.k_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.v_proj": (narrow, hidden),
        }
        tensors |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return tensors | {"model.norm.weight": (hidden,), "lm_head.weight": (number("vocab_size"), hidden)}


def _bytes(tensors: dict[str, Shape]) -> int:
    return 2 * sum(math.prod(shape) for shape in tensors.values())


def _write_files(folder: Path, tensors: dict[str, Shape], files: int, noise: bytes | None) -> int:
    """Cut the tensors into files of like sizes; one file has the usual name, several have an index."""
    weight_map = {}
    for number, group in enumerate(_cut(tensors, files), 1):
        name = "model.safetensors" if files == 1 else f"model-{number:05}-of-{files:05}.safetensors"
        with (folder / name).open("wb") as file:
            _write_file(file, {key: tensors[key] for key in group}, noise)
        weight_map |= dict.fromkeys(group, name)
    if files > 1:
        index = {"metadata": {"total_size": _bytes(tensors)}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return _bytes(tensors)


def _cut(tensors: dict[str, Shape], files: int) -> Iterator[list[str]]:
    total, done, group = _bytes(tensors), 0, []
    written = 0
    for position, (key, shape) in enumerate(tensors.items(), 1):
        group.append(key)
        done += _bytes({key: shape})
        # No file may be left without a tensor, so the last ones close theirs one by one.
        left = len(tensors) - position
        if written < files - 1 and (done >= total * (written + 1) / files or left < files - written):
            yield group
            written, group = written + 1, []
    yield group


def _write_file(file: BinaryIO, tensors: dict[str, Shape], noise: bytes | None) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key, shape in tensors.items():
        size = _bytes({key: shape})
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    if noise is None:
        file.truncate(8 + len(text) + offset)
        return
    for number, shape in enumerate(tensors.values()):
        _write_noise(file, _bytes({"": shape}), noise, number)


def _write_noise(file: BinaryIO, size: int, noise: bytes, number: int) -> None:
    """`size` bytes of the noise, each tensor from another place of it on."""
    start = number * 2_097_152 % len(noise)
    while size:
        part = memoryview(noise)[start : start + size]
        file.write(part)
        size, start = size - len(part), 0
