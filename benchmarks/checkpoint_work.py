"""What benchmarks/checkpoint.py runs in processes of its own: `python checkpoint_work.py TASK PATHS...`.

Each prints what it measured itself as JSON. Everything that is not measured is imported before the clock
starts; what a task does not need it does not import, because memory is measured too.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from processes import memory


def nothing() -> dict[str, Any]:
    """An interpreter with torch."""
    return {}


def nothing_but_classes() -> dict[str, Any]:
    """An interpreter with torch, w8a16 and the model class of transformers."""
    _import_all()
    return {}


def function(source: str, target: str) -> dict[str, Any]:
    """What `w8a16 quantize` does, in a process that has imported everything."""
    _import_all()
    from w8a16.checkpoint.output.stage import staged
    from w8a16.checkpoint.streaming import plan_checkpoint
    from w8a16.integrations.parts import find_parts, skeleton_of

    start, used = time.perf_counter(), time.process_time()
    (part,) = find_parts(Path(source))
    work = plan_checkpoint(part.shards, skeleton_of(part)[0])
    planned = time.perf_counter()
    with staged(Path(target), need_bytes=work.output_bytes) as stage:
        work.run(stage.path)
        written = time.perf_counter()
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "processor_seconds": time.process_time() - used,
        "plan_seconds": planned - start,
        "run_seconds": written - planned,
        "publish_seconds": end - written,
    }


def loop(source: str, target: str) -> dict[str, Any]:
    """The plain loop: every matrix becomes codes and scales, file by file."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    start, used = time.perf_counter(), time.process_time()
    Path(target).mkdir()
    for path in sorted(Path(source).glob("*.safetensors")):
        result = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # the object is no mapping
                weight = file.get_tensor(name)
                if weight.dim() < 2:
                    result[name] = weight
                    continue
                scales = weight.float().abs().amax(1) / 127
                codes = (weight.float() / scales[:, None]).round().clamp(-127, 127).to(torch.int8)
                result |= {f"{name}.codes": codes, f"{name}.scales": scales}
        save_file(result, Path(target) / path.name)
    return {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - used}


def load_int8(folder: str, *, mmap: bool = False) -> dict[str, Any]:
    """Load the quantized checkpoint onto a skeleton."""
    _import_all()
    import w8a16
    from w8a16.integrations.transformers import skeleton

    return _loading(lambda: w8a16.load(skeleton(folder), folder, mmap=mmap))


def load_int8_mapped(folder: str) -> dict[str, Any]:
    """The same, its files mapped."""
    return load_int8(folder, mmap=True)


def load_float(folder: str) -> dict[str, Any]:
    """Load the float checkpoint as transformers does."""
    _import_all()
    from transformers import LlamaForCausalLM

    return _loading(lambda: LlamaForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True))


def open_headers(path: str) -> dict[str, Any]:
    """Open a checkpoint: headers and index, no tensors."""
    from w8a16.checkpoint import open_shards

    start = time.perf_counter()
    shards = open_shards(Path(path))
    count = len(shards.tensors)
    return {"seconds": time.perf_counter() - start, "tensors": count, "files": len(shards.headers)}


def _loading(load: Callable[[], Any]) -> dict[str, Any]:
    """Time to a model, and to one with every page in memory: transformers maps files and reads them later."""
    before, start = memory("VmRSS"), time.perf_counter()
    model = load()
    loaded = time.perf_counter() - start
    for tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.values():
        if tensor.numel():
            tensor.detach().reshape(-1).view(torch.uint8)[::4096].sum()
    return {
        "seconds": loaded,
        "touched_seconds": time.perf_counter() - start,
        "bytes_above_imports": memory("VmHWM") - before,
    }


def _import_all() -> None:
    import transformers

    import w8a16.checkpoint.streaming
    import w8a16.cli.quantize  # noqa: F401

    _ = transformers.LlamaForCausalLM


def main() -> None:
    loaders = [load_int8, load_int8_mapped, load_float]
    tasks = [nothing, nothing_but_classes, function, loop, *loaders, open_headers]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=[task.__name__ for task in tasks])
    parser.add_argument("paths", nargs="*")
    options = parser.parse_args()
    result = next(task for task in tasks if task.__name__ == options.task)(*options.paths)
    print(json.dumps({**result, "peak_bytes": memory("VmHWM")}))


if __name__ == "__main__":
    main()
