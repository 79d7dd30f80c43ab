"""A scenario: a real, small model that is trained on the spot, and held-out examples that score it.

Nothing is downloaded: the data come with Python, with packages of the `study` extra, or are
synthesised. Everything that a scenario does is a function of its arguments; the random state of the
caller is neither used nor changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

SIZES = ("small", "medium", "large")
MODALITIES = ("text", "vision", "audio", "image-text", "tabular")


@dataclass(frozen=True)
class Scores:
    """The metric of each held-out example, so that two models can be compared example by example."""

    metric: str
    """For example "accuracy"."""
    unit: str
    """For example "bits per byte"; empty for a share."""
    better: str
    """"lower" or "higher"."""
    values: Tensor
    """float64 `[examples]`, in the same order for every model. Their mean is the score."""

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"better: expected lower or higher, got {self.better!r}")
        if self.values.dtype != torch.float64 or self.values.dim() != 1 or not len(self.values):
            found = f"{self.values.dtype} {list(self.values.shape)}"
            raise ValueError(f"values: expected float64 [examples], at least one, got {found}")

    @property
    def mean(self) -> float:
        """The score."""
        return float(self.values.mean())

    def losses_against(self, reference: Scores) -> Tensor:
        """How much worse each example is than with the reference model: positive is worse, `[examples]`."""
        sign = 1.0 if self.better == "lower" else -1.0
        return sign * (self.values - reference.values)


class Scenario(Protocol):
    """One kind of model on one kind of data, in three sizes.

    The number of held-out examples is the same for every seed, and the same arguments always give
    the same examples in the same order.
    """

    name: str
    """As in `--scenario`, such as "text-gpt": the modality first."""
    title: str
    """A few words for tables and charts."""
    modality: str
    """One of `MODALITIES`."""
    task: str
    """The name of the task that `compare` measures it by."""
    source: str
    """Where the data come from, in one sentence."""
    sizes: tuple[str, ...]
    """From small to large; `SIZES` for all scenarios of the study."""

    def build(self, size: str) -> nn.Module:
        """The model of this size, float32, in evaluation mode, with any weights: trained ones get loaded."""
        ...

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """The trained model, float32, in evaluation mode; `quick` takes fewer steps, not another model."""
        ...

    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """Score a model on the held-out split.

        `dtype` is the one of the activations: float inputs are cast to it, the model has been already.
        Metrics are computed from the outputs in float32 or better.
        """
        ...

    def baseline(self, seed: int) -> float:
        """The score of the best guess that needs no model: the most frequent class, byte frequencies, ..."""
        ...

    def batches(self, count: int, seed: int) -> list[Any]:
        """So many float32 batches of held-out inputs, as `compare` takes them."""
        ...


class Pretrained:
    """Marks a scenario whose weights come with a package: there is nothing to train, and nothing to keep."""
