"""Pictures, sounds and series as inputs of a model, in the shape that its config asks for.

Letters: B samples of a batch, C channels, H and W height and width, F frames, S samples of a sound.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from w8a16.checkpoint import shown
from w8a16.errors import ComparisonError
from w8a16.integrations.transformers_folders import quiet
from w8a16.study.scenarios.espeak import Utterance, synthesise
from w8a16.study.scenarios.pictures import digits, photographs

RATE = 16_000
"""Samples a second of the sounds."""
_PREPROCESSOR = "preprocessor_config.json"


def random_values(
    field: str, model: nn.Module, folders: Sequence[Path], rows: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Normally distributed values for one input, as keyword arguments of the model.

    Raises:
        ComparisonError: the config does not tell the shape.
    """
    if field == "pixel_values":
        return {field: torch.randn(pixel_shape(model, folders, rows), generator=generator)}
    if field in ("input_values", "input_features"):
        shape = _spectrum_shape(field, model, rows)
        if shape is not None:
            return {field: torch.randn(shape, generator=generator)}
        return sounds(0.1 * torch.randn(rows, RATE, generator=generator), field, model, folders)
    if field == "past_values":
        shape = _series_shape(model, rows)
        if shape is not None:
            return {field: torch.randn(shape, generator=generator)}
    raise ComparisonError(
        f"{type(model).__name__} takes {field}, and its config does not tell the shape: pass --inputs FILE "
        "with all inputs"
    )


def images_of(dataset: str, count: int, generator: torch.Generator) -> Tensor:
    """Pictures of a data set, float32 `[count, 1 or 3, H, W]`, 0 to 1.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    if dataset == "digits":
        images = digits(held_out=True).images[:, None]
        return images[torch.arange(count) % len(images)]
    wholes = photographs(held_out=False)
    side = min(min(whole.shape[1:]) for whole in wholes) // 2
    taken = []
    for number in range(count):
        whole = wholes[number % len(wholes)]
        top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in whole.shape[1:])
        taken.append(whole[:, top : top + side, left : left + side])
    return torch.stack(taken)


def spoken_numbers(count: int) -> Tensor:
    """Spoken two-digit numbers, float32 `[count, S]` at 16 kHz, padded with silence.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
    """
    said = [Utterance(str(21 + 13 * number % 79), "en-us", 160, 50) for number in range(count)]
    waves, rate = synthesise(said)
    longest = max(map(len, waves))
    padded = torch.stack([F.pad(wave / 32768, (0, longest - len(wave))) for wave in waves])
    return F.interpolate(padded[:, None], int(longest * RATE / rate), mode="linear")[:, 0]


def pictures(images: Tensor, model: nn.Module, folders: Sequence[Path]) -> dict[str, Tensor]:
    """Pictures as `pixel_values`: resized, with the channels of the model, normalized as its folder says.

    Args:
        images: float32 `[B, 1 or 3, H, W]`, 0 to 1.
        model: on the meta device, too.
        folders: where `preprocessor_config.json` may lie.
    """
    shape = pixel_shape(model, folders, len(images))
    channels, height, width = shape[-3:]
    resized = F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)
    if channels != resized.shape[1]:
        resized = resized.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    said = _preprocessor(folders)
    mean, deviation = (_channel_values(said.get(name), channels) for name in ("image_mean", "image_std"))
    pixels = (resized - mean) / deviation
    return {"pixel_values": pixels.unsqueeze(1).expand(shape).contiguous() if len(shape) == 5 else pixels}


def sounds(waves: Tensor, field: str, model: nn.Module, folders: Sequence[Path]) -> dict[str, Tensor]:
    """Sounds as the input `field`: by the feature extractor of the folder, where there is one.

    Args:
        waves: float32 `[B, S]` at 16 kHz.
        field: "input_values" or "input_features".
        model: on the meta device, too.
        folders: where `preprocessor_config.json` may lie.

    Raises:
        ComparisonError: the model takes features, and no folder says how they are made.
    """
    folder = next((each for each in folders if (each / _PREPROCESSOR).is_file()), None)
    if folder is not None:
        return _extracted(waves, field, folder)
    if field == "input_values":
        channels = getattr(model.config, "audio_channels", None)  # codecs
        return {field: waves[:, None].expand(-1, channels, -1) if isinstance(channels, int) else waves}
    listed = " and ".join(shown(each) for each in folders)
    raise ComparisonError(
        f"{listed}: {type(model).__name__} takes {field}, which the feature extractor makes of sounds: no "
        f"{_PREPROCESSOR}; copy it there, or pass --inputs FILE with {field}"
    )


def pixel_shape(model: nn.Module, folders: Sequence[Path], rows: int) -> tuple[int, ...]:
    """`[B, C, H, W]`, or `[B, F, C, H, W]` for videos."""
    config = _part(model, "vision_config", "image_config", "encoder")
    said = _first(config, "image_size", "input_size") or _preprocessor_size(folders) or 224
    height, width = (said, said) if isinstance(said, int) else tuple(said)[:2]
    shape: tuple[int, ...] = (int(getattr(config, "num_channels", None) or 3), int(height), int(width))
    frames = getattr(config, "num_frames", None)
    return (rows, frames, *shape) if isinstance(frames, int) else (rows, *shape)


def _spectrum_shape(field: str, model: nn.Module, rows: int) -> tuple[int, ...] | None:
    """The shape of a spectrum; None where waves are wanted, or the config does not tell."""
    config = _part(model, "audio_config")
    bands, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    if field == "input_values":  # audio spectrogram transformers
        length = getattr(config, "max_length", None)
        return (rows, length, bands) if isinstance(bands, int) and isinstance(length, int) else None
    if isinstance(bands, int) and isinstance(frames, int):  # Whisper: its first layers halve the frames
        return (rows, bands, 2 * frames)
    for name in ("input_feat_per_channel", "feature_projection_input_dim"):
        width = getattr(config, name, None)
        if isinstance(width, int):
            return (rows, 100, width)
    return None


def _series_shape(model: nn.Module, rows: int) -> tuple[int, ...] | None:
    config: Any = model.config
    length, channels = getattr(config, "context_length", None), getattr(config, "num_input_channels", None)
    if not isinstance(length, int):
        return None
    return (rows, length, channels) if isinstance(channels, int) else (rows, length)


def _part(model: nn.Module, *names: str) -> Any:
    """The config of one modality, or of the whole model where it has only one."""
    config: Any = model.config
    return _first(config, *names) or config


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None))), None)


def _extracted(waves: Tensor, field: str, folder: Path) -> dict[str, Tensor]:
    from transformers import AutoFeatureExtractor

    try:
        with quiet():
            extractor = AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
            rate = getattr(extractor, "sampling_rate", None) or RATE
            resampled = F.interpolate(waves[:, None], int(waves.shape[1] * rate / RATE), mode="linear")[:, 0]
            features = extractor(list(resampled.numpy()), sampling_rate=rate, return_tensors="pt")
    except Exception as error:  # a broken folder makes transformers raise almost anything
        raise ComparisonError(
            f"{shown(folder)}: transformers cannot make {field} of sounds: {shown(str(error))}; pass "
            f"--inputs FILE with {field}"
        ) from error
    return {name: value for name, value in features.items() if isinstance(value, Tensor)}


def _preprocessor(folders: Sequence[Path]) -> dict[str, Any]:
    for folder in folders:
        try:
            said = json.loads((folder / _PREPROCESSOR).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(said, dict):
            return said
    return {}


def _preprocessor_size(folders: Sequence[Path]) -> int | tuple[int, int] | None:
    said = _preprocessor(folders)
    size = said.get("crop_size") or said.get("size")
    if isinstance(size, dict):
        if isinstance(size.get("height"), int) and isinstance(size.get("width"), int):
            return size["height"], size["width"]
        size = size.get("shortest_edge")
    return size if isinstance(size, int) else None


def _channel_values(said: Any, channels: int) -> Tensor:
    """What to take off or divide by for each channel, `[C, 1, 1]`; one half where nothing is said."""
    fits = isinstance(said, list) and len(said) == channels and all(isinstance(v, (int, float)) for v in said)
    return torch.tensor(said if fits else [0.5] * channels, dtype=torch.float32).view(-1, 1, 1)
