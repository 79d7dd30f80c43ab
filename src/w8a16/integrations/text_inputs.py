"""Text as inputs of a model: by the tokenizer of its folder, in blocks for language models, else one by one.

Letters: B texts of a batch, T tokens of a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.checkpoint import as_resource_error, shown
from w8a16.errors import CheckpointError
from w8a16.integrations.model_tasks import ModelTask, accepted_inputs
from w8a16.integrations.transformers_folders import quiet

LENGTH = 128
"""Tokens of a block, and the most of a single text."""
_USUAL = 32
"""Tokens of a single text, about."""
_VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "source.spm", "tekken.json", "vocab.bpe",
)  # fmt: skip
_OF_BYTES = {"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer", "ReformerTokenizer"}
_LONGEST_FILE = 1 << 26  # bytes


@dataclass(frozen=True)
class TextSize:
    """How much text to take."""

    tokens: int
    """About how many in a batch."""
    count: int
    """Batches."""
    rows: int | None = None
    """Texts of a batch, instead of `tokens`."""


def read_texts(file: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        ResourceError: it cannot be read.
        CheckpointError: it is not UTF-8, or holds no text.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LONGEST_FILE)
        lines = raw.decode("utf-8", errors="strict" if len(raw) < _LONGEST_FILE else "ignore").splitlines()
    except OSError as error:
        raise as_resource_error(file, error) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{shown(file)}: expected text in UTF-8, got byte {raw[error.start]:#04x} at {error.start}; "
            "tensors go to --inputs"
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise CheckpointError(f"{shown(file)}: no text in it; expected one text a line")
    return texts


def python_docs() -> list[str]:
    """Sentences from the topics of Python's own documentation, which come with Python."""
    from pydoc_data.topics import topics

    sentences = []
    for topic in topics.values():
        for paragraph in re.split(r"\n\s*\n", topic):
            words = paragraph.split()
            if len(words) >= 12 and words[0].isalpha() and not {"::=", ">>>", "|"} & set(words):
                sentences += re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(words))
    return [sentence for sentence in sentences if 6 <= len(sentence.split()) <= 60]


def text_batches(
    folders: Sequence[Path], model: nn.Module, task: ModelTask, texts: Sequence[str], size: TextSize
) -> list[dict[str, Tensor]]:
    """Turn texts into batches of keyword arguments.

    Args:
        folders: where the tokenizer may lie, the best first.
        model: on the meta device, too.
        task: of the model.
        texts: what to take, from the first on.
        size: of the batches, and how many at the most.

    Returns:
        `input_ids` int64 `[B, T]`, with `attention_mask` and the like where the model takes them. Language
        models get the texts as one, cut into blocks; other models one text a row.

    Raises:
        CheckpointError: no tokenizer, one that does not fit the model, or not a single token.
    """
    tokenizer = load_tokenizer(folders)
    length = min(LENGTH, size.tokens, _most_positions(model, tokenizer))
    if task.task == "language" and task.fields == ("input_ids",):
        rows = size.rows or max(1, size.tokens // length)
        made = _blocks(tokenizer, texts, length, rows, size.count)
    else:
        rows = size.rows or max(1, size.tokens // _USUAL)
        taken = texts[: rows * size.count]
        made = [
            _padded(tokenizer, taken[first : first + rows], length) for first in range(0, len(taken), rows)
        ]
    _check(folders, tokenizer, model, made)
    accepted = accepted_inputs(model)
    batches = [{name: value for name, value in batch.items() if name in accepted} for batch in made]
    if task.has_decoder:
        for batch in batches:
            batch["decoder_input_ids"] = decoder_ids(model, batch["input_ids"])
    return batches


def load_tokenizer(folders: Sequence[Path]) -> Any:
    """The tokenizer of the first folder that has one.

    Raises:
        CheckpointError: none has, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    found = next((folder for folder in folders if _has_tokenizer(folder)), None)
    if found is None:
        listed = " and ".join(shown(folder) for folder in folders)
        raise CheckpointError(
            f"{listed}: no tokenizer; expected tokenizer_config.json and a vocabulary "
            f"({', '.join(_VOCABULARIES[:4])}, ...): copy those files into one of them, or pass --inputs "
            "FILE with input_ids"
        )
    try:
        with quiet():
            # No code from the folder is run: trust_remote_code is off unless asked for.
            return AutoTokenizer.from_pretrained(str(found), local_files_only=True)
    except Exception as error:  # a broken folder makes transformers raise almost anything
        raise CheckpointError(
            f"{shown(found)}: transformers cannot load its tokenizer: {shown(str(error))}"
        ) from error


def _has_tokenizer(folder: Path) -> bool:
    """Without a vocabulary transformers makes an empty tokenizer, for which every word is unknown."""
    if any((folder / name).is_file() for name in _VOCABULARIES) or any(folder.glob("*.tiktoken")):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and any(name in config.read_text(errors="replace") for name in _OF_BYTES)


def _most_positions(model: nn.Module, tokenizer: Any) -> int:
    """The longest text that model and tokenizer take, at least 2."""
    config: Any = getattr(model, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    known = [getattr(text_config, name, None) for name in ("max_position_embeddings", "n_positions")]
    known += [getattr(tokenizer, "model_max_length", None)]
    offset = 2 if getattr(text_config, "model_type", "") in ("roberta", "xlm-roberta", "camembert") else 0
    lengths = [int(value) - offset for value in known if isinstance(value, int) and value > 0]
    return max(2, min(lengths, default=LENGTH))


def _blocks(
    tokenizer: Any, texts: Sequence[str], length: int, rows: int, count: int
) -> list[dict[str, Tensor]]:
    """All texts as one, in blocks of equal length; a short text makes one shorter block."""
    ids: list[int] = []
    for text in texts:
        ids += tokenizer(text + "\n", add_special_tokens=False)["input_ids"]
        if len(ids) >= length * rows * count:
            break
    length = min(length, len(ids))
    if length < 2:
        return []
    whole = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)[: rows * count]
    return [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in whole.split(rows)]


def _padded(tokenizer: Any, texts: Sequence[str], length: int) -> dict[str, Tensor]:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    return dict(encoded)


def _check(
    folders: Sequence[Path], tokenizer: Any, model: nn.Module, batches: Sequence[dict[str, Tensor]]
) -> None:
    if not batches or not batches[0]["input_ids"].numel():
        raise CheckpointError("the text is less than two tokens; expected more text")
    largest = max(int(batch["input_ids"].max()) for batch in batches)
    rows = vocabulary_size(model)
    if rows is not None and largest >= rows:
        raise CheckpointError(
            f"{shown(folders[0])}: its tokenizer makes token {largest}, but the model knows {rows} tokens; "
            "is it the tokenizer of another model?"
        )
    ordinary = set(_ordinary(tokenizer, batches))
    if not ordinary:
        raise CheckpointError(
            f"{shown(folders[0])}: its tokenizer knows not one word of the text; is its vocabulary complete?"
        )


def _ordinary(tokenizer: Any, batches: Sequence[dict[str, Tensor]]) -> Iterator[int]:
    special = set(tokenizer.all_special_ids)
    for batch in batches:
        yield from (token for token in batch["input_ids"].unique().tolist() if token not in special)


def vocabulary_size(model: nn.Module) -> int | None:
    """How many token ids a model knows, where it says so."""
    embeddings: Any = getattr(model, "get_input_embeddings", lambda: None)
    try:
        weight: Any = getattr(embeddings(), "weight", None)
    except NotImplementedError:
        return None
    return None if weight is None or weight.dim() != 2 else int(weight.shape[0])


def decoder_ids(model: nn.Module, ids: Tensor) -> Tensor:
    """What a decoder is given: its start token, then all but the last of `ids` `[B, T]`."""
    says = [model.config, getattr(model, "generation_config", None)]
    known = [getattr(c, f"{name}_token_id", None) for name in ("decoder_start", "bos", "pad") for c in says]
    start = next((token for token in known if isinstance(token, int)), 0)
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)
