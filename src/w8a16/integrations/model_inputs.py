"""The inputs of a comparison: from a file, from data that come with a package, or random ones, said so.

What is not given is made: text models get text, all others random values in the shape that the config
asks for. Those show how far the int8 model drifts, but say nothing about the quality of its answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from w8a16.checkpoint import shown
from w8a16.errors import ComparisonError, UsageError
from w8a16.integrations.array_inputs import array_batches, read_arrays
from w8a16.integrations.model_tasks import MODALITIES, ModelTask
from w8a16.integrations.signal_inputs import images_of, pictures, random_values, sounds, spoken_numbers
from w8a16.integrations.text_inputs import (
    TextSize,
    decoder_ids,
    python_docs,
    read_texts,
    text_batches,
    vocabulary_size,
)

DATASETS = {
    "python-docs": ("text", "sentences of Python's documentation, which come with Python"),
    "digits": ("images", "handwritten digits of scikit-learn"),
    "photographs": ("images", "pieces of the two photographs of scikit-learn"),
    "spoken-words": ("audio", "numbers spoken by eSpeak NG"),
}
"""What comes with packages: the modality, and what it is."""

_INSTEAD = {
    "text": "--text FILE, --dataset python-docs, or --inputs FILE with input_ids",
    "audio": "--dataset spoken-words, or --inputs FILE with input_values or input_features",
    "images": "--dataset photographs, --dataset digits, or --inputs FILE with pixel_values",
}
_ROWS = 4
"""Samples of a batch that are not text alone."""
_TOKENS = 512
_DECODED = 8
"""Tokens for the decoder of a model that looks at something else than text."""


@dataclass(frozen=True)
class Request:
    """What was asked for; at most one of the first three."""

    inputs: Path | None = None
    dataset: str | None = None
    text: Path | None = None
    batches: int = 8
    tokens: int = _TOKENS
    """About how many in a batch of text."""


@dataclass(frozen=True)
class Inputs:
    """Batches of keyword arguments, and where they come from."""

    batches: list[dict[str, Tensor]]
    source: str
    """In words."""
    random: tuple[str, ...]
    """The inputs that are random numbers, because nothing else was given."""

    def cast_to(self, dtype: torch.dtype | None) -> list[dict[str, Tensor]]:
        """The batches with float tensors in the dtype of a model; None: as they are."""
        return [
            {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
            for batch in self.batches
        ]


def make_inputs(model: nn.Module, folders: tuple[Path, ...], task: ModelTask, request: Request) -> Inputs:
    """Make the batches.

    Args:
        model: on the meta device, too.
        folders: where its tokenizer and preprocessor may lie, the best first.
        task: of the model.
        request: what to make them of.

    Returns:
        Batches on the CPU; float tensors are float32.

    Raises:
        UsageError: several sources, an unknown data set, or no batches asked for.
        ComparisonError: inputs that the model does not take, or that cannot be made for it.
        CheckpointError: a file does not hold what it should, or there is no tokenizer.
        MissingExtraError: a data set needs a library that is not installed.
    """
    _check(request)
    if request.inputs is not None:
        arrays = read_arrays(request.inputs)
        batches = array_batches(request.inputs, arrays, model, _ROWS, request.batches)
        return Inputs([_as_taken(batch) for batch in batches], shown(request.inputs), ())
    _check_modality(model, task, request)
    if not task.fields:
        raise ComparisonError(
            f"{type(model).__name__}: its inputs are not known here: pass --inputs FILE with them"
        )
    generator = torch.Generator().manual_seed(0)
    made = [_field(field, model, folders, task, request, generator) for field in task.fields]
    batches = [
        {name: value for part in parts for name, value in part.items()}
        for parts in zip(*(field.batches for field in made), strict=False)
    ]
    random = [name for field in made for name in field.random]
    if task.has_decoder and "input_ids" not in task.fields:
        random.append("decoder_input_ids")
        for batch in batches:
            batch["decoder_input_ids"] = _random_tokens(len(batch[task.fields[0]]), model, generator)
    sources = [field.source for field in made if field.source]
    sources += [f"random {', '.join(random)}"] if random else []
    return Inputs([_as_taken(batch) for batch in batches], "; ".join(sources), tuple(random))


def tokens_at_once(model: nn.Module, output_bytes: int, most_bytes: int) -> int:
    """How many tokens of text to take in a batch, from 16 to 512.

    Args:
        model: on the meta device, too.
        output_bytes: of all layers for one token.
        most_bytes: of all layers for one batch; logits, of which there are several copies, may have a
            quarter of it.
    """
    embeddings = getattr(model, "get_output_embeddings", lambda: None)()
    logits = 4 * (vocabulary_size(model) or 0) if embeddings is not None else 0
    return max(16, min(_TOKENS, most_bytes // max(output_bytes, 4 * logits, 1)))


def _check(request: Request) -> None:
    options = {"--inputs": request.inputs, "--dataset": request.dataset, "--text": request.text}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"expected one of --inputs, --dataset and --text, got {' and '.join(given)}")
    if request.batches < 1:
        raise UsageError(f"--batches: expected at least 1, got {request.batches}")
    if request.dataset is not None and request.dataset not in DATASETS:
        known = "; ".join(f"{name} ({what})" for name, (_, what) in DATASETS.items())
        raise UsageError(
            f"--dataset {request.dataset!r}: expected one of: {known}; pip install 'w8a16[study]' brings "
            "what they need; your own data go to --inputs or --text"
        )


def _check_modality(model: nn.Module, task: ModelTask, request: Request) -> None:
    """Text or a data set of a kind that the model does not take."""
    given = "text" if request.text is not None else DATASETS.get(str(request.dataset), ("", ""))[0]
    if not given or given in task.modalities:
        return
    takes = [
        f"{kind} ({field}): pass {_INSTEAD.get(kind, f'--inputs FILE with {field}')}"
        for field in task.fields
        for kind in [MODALITIES[field]]
    ]
    raise ComparisonError(
        f"{type(model).__name__} takes no {given}; it takes {' and '.join(takes) or 'other inputs'}"
    )


def _field(
    field: str,
    model: nn.Module,
    folders: tuple[Path, ...],
    task: ModelTask,
    request: Request,
    generator: torch.Generator,
) -> Inputs:
    """All batches of one input, with what belongs to it (a mask)."""
    modality, count = MODALITIES[field], request.batches
    if modality == "text":
        source = DATASETS["python-docs"][1] if request.text is None else shown(request.text)
        texts = python_docs() if request.text is None else read_texts(request.text)
        size = TextSize(request.tokens, count, None if task.fields == (field,) else _ROWS)
        return Inputs(text_batches(folders, model, task, texts, size), source, ())
    if request.dataset == "spoken-words" and modality == "audio":
        waves = spoken_numbers(_ROWS * count).split(_ROWS)
        return Inputs(
            [sounds(each, field, model, folders) for each in waves], DATASETS[request.dataset][1], ()
        )
    if request.dataset is not None and DATASETS[request.dataset][0] == modality:
        taken = images_of(request.dataset, _ROWS * count, generator).split(_ROWS)
        return Inputs(
            [pictures(images, model, folders) for images in taken], DATASETS[request.dataset][1], ()
        )
    made = [random_values(field, model, folders, _ROWS, generator) for _ in range(count)]
    return Inputs(made, "", (field,))


def _random_tokens(rows: int, model: nn.Module, generator: torch.Generator) -> Tensor:
    """Token ids for a decoder, int64 `[rows, 8]`."""
    known = vocabulary_size(model) or 2
    return decoder_ids(model, torch.randint(known, (rows, _DECODED), generator=generator))


def _as_taken(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Signals in float32, even where a file has them in integers or in float64."""
    signals = {name for name, modality in MODALITIES.items() if modality != "text"}
    return {
        name: value.float() if name in signals or value.is_floating_point() else value
        for name, value in batch.items()
    }
