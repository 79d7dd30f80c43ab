"""Generate text with a causal language model of transformers whose weights are int8.

    python examples/text_generation.py FOLDER_OR_HUB_ID --prompt "Once upon a time"

Without a model it makes a tiny one with random weights, to show the steps: quantize while loading, generate,
save, load again, and get the same tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import transformers

import w8a16
from w8a16.integrations.transformers import from_pretrained

TINY = {
    "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> torch.Tensor:
    """Run the example and return the tokens."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", help="a folder or a hub id; default: a tiny random model")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=20)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return _run(options, Path(folder))


def _run(options: argparse.Namespace, folder: Path) -> torch.Tensor:
    source = options.model or _tiny_model(folder / "float")
    model = from_pretrained(source)  # each float weight is quantized as it is read, then dropped
    plan = w8a16.plan(model)
    print(f"{plan.coverage:.0%} of the weights are int8: {plan.bytes_after / 1e6:.2f} MB")

    if options.model:
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
        inputs = tokenizer(options.prompt, return_tensors="pt").input_ids
    else:
        tokenizer = None
        inputs = torch.tensor([list(options.prompt.encode())])
    settings = {"max_new_tokens": options.tokens, "do_sample": False}
    tokens = model.generate(inputs, **settings)
    print(tokenizer.decode(tokens[0]) if tokenizer else tokens[0, inputs.shape[1] :].tolist())

    model.save_pretrained(folder / "int8")
    again = transformers.AutoModelForCausalLM.from_pretrained(folder / "int8")  # needs no rules
    print("the same tokens after loading again:", torch.equal(again.generate(inputs, **settings), tokens))
    return tokens


def _tiny_model(folder: Path) -> Path:
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY)).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
