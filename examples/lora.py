"""Fine-tune a language model with LoRA, once on float weights and once on int8 weights, and compare.

    python examples/lora.py

The base model is a small Llama that reads bytes. It is trained here on the source code of Python's standard
library; the adapters then teach it the English of Python's language reference, which ships with Python too.
Both runs see the same batches and start from the same adapters. Two minutes on a laptop.
"""

from __future__ import annotations

import argparse
import argparse as a_module_of_the_library
import copy
import pydoc_data.topics
from pathlib import Path

import peft
import torch
import transformers

import w8a16
from w8a16.integrations.peft import merge_losses

SIZE = {
    "vocab_size": 256, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "intermediate_size": 320, "tie_word_embeddings": False,
}  # fmt: skip
LENGTH = 96


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the example and return its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base-steps", type=int, default=250, help="steps to train the base model")
    parser.add_argument("--steps", type=int, default=120, help="steps to train the adapters")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZE))
    train(base, source_code(), options.base_steps, rate=2e-3)
    reference = language_reference()
    held_out, text = reference[: 32 * LENGTH], reference[32 * LENGTH :]

    int8_base = w8a16.quantize(copy.deepcopy(base))
    plan = w8a16.plan(int8_base)
    figures = {
        "base, float, loss": loss(base, held_out),
        "base, int8, loss": loss(int8_base, held_out),
        "base, float, bytes": plan.bytes_before,
        "base, int8, bytes": plan.bytes_after,
    }
    for name, model in (("float", base), ("int8", int8_base)):
        torch.manual_seed(1)  # the same adapters to start from
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear"))
        train(adapted, text, options.steps, rate=3e-3)
        figures[f"LoRA on {name}, loss"] = loss(adapted, held_out)
    merged = adapted.merge_and_unload()
    figures["LoRA on int8, merged, loss"] = loss(merged, held_out)
    figures["least adapter-to-rounding, dB"] = min(item.adapter_db for item in merge_losses(merged).values())
    figures["memory of the base"] = figures["base, int8, bytes"] / figures["base, float, bytes"]
    figures["loss, int8 to float"] = figures["LoRA on int8, loss"] / figures["LoRA on float, loss"]
    for name, value in figures.items():
        print(f"{name:32} {value:12,.4f}" if isinstance(value, float) else f"{name:32} {value:12,}")
    return figures


def source_code() -> torch.Tensor:
    """A megabyte of Python source, as byte values."""
    folder = Path(a_module_of_the_library.__file__).parent
    files = sorted(folder.glob("[a-z]*.py"), key=lambda file: file.name)
    return as_bytes("\n".join(file.read_text(encoding="utf-8") for file in files)[: 1 << 20])


def language_reference() -> torch.Tensor:
    """The topics of `help()`, as byte values."""
    topics = pydoc_data.topics.topics
    return as_bytes("\n".join(topics[name] for name in sorted(topics)))


def as_bytes(text: str) -> torch.Tensor:
    """The UTF-8 bytes of a text, int64."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()


def train(model: torch.nn.Module, text: torch.Tensor, steps: int, rate: float) -> None:
    """AdamW on random blocks of `text`; only what requires a gradient is trained."""
    generator = torch.Generator().manual_seed(0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20, (steps - step) / (steps / 2))
        starts = torch.randint(len(text) - LENGTH, (16,), generator=generator).tolist()
        blocks = torch.stack([text[start : start + LENGTH] for start in starts])
        model(input_ids=blocks, labels=blocks).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def loss(model: torch.nn.Module, text: torch.Tensor) -> float:
    """Mean negative log-likelihood of a byte, in nats."""
    blocks = text.reshape(-1, LENGTH)
    with torch.no_grad():
        return model(input_ids=blocks, labels=blocks).loss.item()


if __name__ == "__main__":
    main()
