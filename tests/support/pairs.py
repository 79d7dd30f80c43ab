"""A float model folder with a tokenizer, and the int8 folder made from it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from torch import nn

import w8a16

WORDS = ("the", "a", "of", "and", "is", "to", "in", "value", "object", "name", "class", "type", "this", "be")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that knows `WORDS` and nothing else, as transformers saves it."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for number, word in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_pair(model: nn.Module, folder: Path, *, tokenizer: bool = True) -> tuple[Path, Path]:
    """`folder/float`, and `folder/int8` with the same config and the quantized weights."""
    model.eval().save_pretrained(folder / "float")
    if tokenizer:
        write_tokenizer(folder / "float")
    (folder / "int8").mkdir()
    for file in (folder / "float").glob("*.json"):
        shutil.copy(file, folder / "int8")
    w8a16.save(w8a16.quantize(copy.deepcopy(model)), folder / "int8")
    return folder / "float", folder / "int8"


def tiny(class_name: str, **config: object) -> nn.Module:
    """A seeded model of transformers."""
    import transformers

    torch.manual_seed(0)
    model_class = getattr(transformers, class_name)
    return model_class(model_class.config_class(**{**TINY, **config}))
