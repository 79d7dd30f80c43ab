"""Pictures that need no download: scikit-learn's handwritten digits and crops of its two photographs.

Training and held-out pictures share nothing: the held-out digits are the last 400 of 1797 (scikit-learn
keeps them in the order in which they were written, so most are by other hands), the held-out crops lie in
the right third of each photograph, ten columns away from the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from w8a16.errors import MissingExtraError

HELD_OUT_DIGITS = 400
_LAST_TRAINING_COLUMN, _FIRST_HELD_OUT_COLUMN = 420, 430  # of 640


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: float32 `[n, 8, 8]` from 0 (paper) to 1 (ink), and int64 labels `[n]`."""

    images: Tensor
    labels: Tensor


@cache
def digits(held_out: bool) -> Digits:
    """The digits for training (1397) or the held-out ones (400).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    data = sklearn_datasets("the digits").load_digits()
    images = torch.tensor(data.images, dtype=torch.float32) / 16
    labels = torch.tensor(data.target, dtype=torch.int64)
    border = len(labels) - HELD_OUT_DIGITS
    part = slice(border, None) if held_out else slice(border)
    return Digits(images[part], labels[part])


@cache
def photographs(held_out: bool) -> Tensor:
    """The left two thirds (training) or the right third (held out) of both photographs.

    Returns:
        `[2, 3, 427, width]`, from 0 to 1.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    part = slice(_FIRST_HELD_OUT_COLUMN, None) if held_out else slice(_LAST_TRAINING_COLUMN)
    images = sklearn_datasets("the photographs").load_sample_images().images
    return torch.stack([torch.tensor(image[:, part]).permute(2, 0, 1) / 255 for image in images])


def crops(count: int, size: int, held_out: bool, generator: torch.Generator) -> Tensor:
    """Square pieces of the photographs, mirrored half of the time, `[count, 3, size, size]`, 0 to 1."""
    windows = photographs(held_out).unfold(2, size, 1).unfold(3, size, 1)  # [2, 3, y, x, size, size]
    picked = torch.randint(len(windows), (count,), generator=generator)
    tops = torch.randint(windows.shape[2], (count,), generator=generator)
    lefts = torch.randint(windows.shape[3], (count,), generator=generator)
    found = windows[picked, :, tops, lefts]
    mirrored = torch.rand(count, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], found.flip(-1), found)


def placed(images: Tensor, size: int, angles: Tensor, zooms: Tensor, shifts: Tensor) -> Tensor:
    """Draw digits on larger canvases.

    Args:
        images: `[n, 8, 8]`.
        size: of the canvas, in pixels.
        angles: degrees, positive is clockwise, `[n]`.
        zooms: 1 makes a digit as large as the canvas, `[n]`.
        shifts: of the centre to the right and down, 1 is half the canvas, `[n, 2]`.

    Returns:
        `[n, 1, size, size]`.
    """
    radians = angles * (math.pi / 180)
    turn = torch.stack([radians.cos(), radians.sin(), -radians.sin(), radians.cos()], 1).view(-1, 2, 2)
    inverse = turn / zooms[:, None, None]  # affine_grid wants the map from canvas to image
    maps = torch.cat([inverse, -inverse @ shifts[:, :, None]], 2)
    grid = F.affine_grid(maps, [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random float32 numbers between two bounds."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def sklearn_datasets(purpose: str) -> Any:
    """scikit-learn's data sets, all of them in the package.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "study", purpose) from error
    return datasets
