"""What a transformers model is for, and which inputs it takes: told by its class, without running it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

MODALITIES = {
    "input_ids": "text",
    "pixel_values": "images",
    "pixel_values_videos": "videos",
    "input_values": "audio",
    "input_features": "audio",
    "past_values": "time series",
}
"""The inputs that carry what a model looks at, and what that is."""

_ENDINGS = {
    "ForCTC": "ctc",
    "ForCausalLM": "language",
    "LMHeadModel": "language",
    "ForMaskedLM": "classification",
    "ForImageSuperResolution": "image",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "classification",
    "ForImageClassification": "classification",
    "ForAudioClassification": "classification",
    "ForVideoClassification": "classification",
}


@dataclass(frozen=True)
class ModelTask:
    """How to measure a model, and what to give it."""

    task: str
    """The name of a task of `w8a16.study.compare`."""
    fields: tuple[str, ...]
    """Names of the inputs to make, the main one first; keys of `MODALITIES`."""
    has_decoder: bool
    """Whether it takes `decoder_input_ids` as well."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it looks at: "text", "images", ..."""
        return tuple(dict.fromkeys(MODALITIES[field] for field in self.fields))


def model_task(model: nn.Module) -> ModelTask:
    """The task and the inputs of a transformers model; the meta device will do."""
    accepted = accepted_inputs(model)
    has_decoder = _is_encoder_decoder(model) and "decoder_input_ids" in accepted
    return ModelTask(_task(model, has_decoder), _fields(model, accepted), has_decoder)


def accepted_inputs(model: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of `forward`, in order."""
    parameters = inspect.signature(model.forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def _task(model: nn.Module, has_decoder: bool) -> str:
    name = type(model).__name__
    if has_decoder and _can_generate(model):
        return "seq2seq"
    for ending, task in _ENDINGS.items():
        if name.endswith(ending):
            return task
    if name.endswith("ForConditionalGeneration") and "text" in _modalities_said(model):
        return "language"  # a decoder that is shown pictures or sounds in the place of tokens
    if name.endswith(("Model", "ModelWithProjection")) and not _is_encoder_decoder(model):
        return "embedding"
    return "any"


def _fields(model: nn.Module, accepted: tuple[str, ...]) -> tuple[str, ...]:
    """The main input, and those of the other modalities where the model is of no use without them."""
    main = str(getattr(model, "main_input_name", "input_ids"))
    own = [main] if main in MODALITIES and main in accepted else []
    if not own:
        return tuple(name for name in MODALITIES if name in accepted)[:1]
    if main == "input_ids" and (_can_generate(model) or _task(model, False) == "language"):
        return tuple(own)  # text alone will do
    others = [name for name in ("input_ids", "pixel_values", "input_features") if name in accepted]
    said = _modalities_said(model)
    return tuple(dict.fromkeys([*own, *(name for name in others if MODALITIES[name] in said)]))


def _modalities_said(model: nn.Module) -> set[str]:
    """What the class says that it takes, in the words of `MODALITIES`."""
    said: Any = getattr(model, "input_modalities", ())
    words = {"image": "images", "video": "videos", "time": "time series"}
    return {words.get(word, word) for word in ((said,) if isinstance(said, str) else said)}


def _can_generate(model: nn.Module) -> bool:
    said: Any = getattr(model, "can_generate", None)
    return bool(said and said())


def _is_encoder_decoder(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
