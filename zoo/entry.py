"""One animal of the zoo: how to build a tiny model, what to feed it, what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FAMILIES = (
    "text-decoder",
    "text-encoder",
    "text-seq2seq",
    "state-space",
    "mixture-of-experts",
    "vision",
    "audio",
    "multimodal",
    "time-series",
    "diffusion",
    "plain",
)
"""Every family an entry may name, in the order of the report."""

SEED = 20
"""The seed before each build, each making of inputs and each run."""

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

Inputs = Mapping[str, Any] | tuple[Any, ...]


@dataclass(frozen=True)
class Tolerance:
    """A bound for the distance from the twin other than the usual one, and the reason for it."""

    relative_error: float
    reason: str


@dataclass(frozen=True)
class Entry:
    """An architecture: a tiny model with inputs, and its library-default size for the coverage."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    """Makes the model with random weights; call `make_model` for a seeded one in evaluation mode."""
    inputs: Callable[[], Inputs]
    """Makes keyword arguments or positional ones; call `make_inputs` for seeded ones."""
    generate: bool = False
    transformer_like: bool = True
    published: Callable[[], nn.Module] | None = None
    """Builds the architecture in the default size of its library; only ever called on the meta device."""
    tolerance: Tolerance | None = None
    note: str = ""


def make_model(entry: Entry, seed: int = SEED) -> nn.Module:
    """Build the model of `entry`: float32, evaluation mode, the same weights for the same seed."""
    torch.manual_seed(seed)
    model = entry.build().float().eval()
    enliven(model)
    return model


def make_inputs(
    entry: Entry,
    dtype: torch.dtype = torch.float32,
    *,
    then: torch.dtype | None = None,
    seed: int = SEED,
) -> Inputs:
    """The inputs of `entry`, the same for the same seed; floating-point tensors rounded to `dtype`.

    With `then` they are cast once more, so that two dtypes can be fed the same numbers.
    """
    torch.manual_seed(seed)
    made = entry.inputs()
    if isinstance(made, Mapping):
        return {name: _cast(value, dtype, then or dtype) for name, value in made.items()}
    return tuple(_cast(value, dtype, then or dtype) for value in made)


def make_published(entry: Entry) -> nn.Module | None:
    """The architecture in full size, on the meta device: shapes without memory."""
    if entry.published is None:
        return None
    with torch.device("meta"):
        return entry.published().eval()


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Give the parameters values under which every part of the model matters.

    A new model has biases of zero, norms of one and often whole layers of zeros (so that training
    starts from the identity). With them a dropped bias, a swapped norm or a lost layer would change
    no output, and no check could see it. Branches that are scaled down to almost nothing, and stacks
    of convolutions so small that they wipe out their input, hide what is before them in the same way.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1:
            _enliven(parameter)
    for module in model.modules():
        # Reparametrized weights are no parameters of their module; they keep their size.
        weight = module._parameters.get("weight")
        if weight is None or not weight.is_floating_point():
            continue
        if isinstance(module, CONVOLUTIONS):
            gain = weight.std().item() * weight[0].numel() ** 0.5
            weight *= 1 / gain if gain < 0.5 else 1
        elif weight.dim() == 1 and "BatchNorm" in type(module).__name__ and weight.abs().mean() < 0.5:
            weight += 1


def _enliven(parameter: nn.Parameter) -> None:
    value = parameter.flatten()[0].item()
    constant = bool((parameter == value).all())
    if constant and 0 < abs(value) < 0.2:
        parameter += 0.5  # the scale of a residual branch that is closed at first
    if parameter.dim() == 1:
        parameter += 0.05 * torch.randn_like(parameter)
    elif constant:
        parameter += torch.randn_like(parameter) / parameter[0].numel() ** 0.5


def _cast(value: Any, dtype: torch.dtype, then: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype).to(then) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {name: _cast(item, dtype, then) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype, then) for item in value)
    return value
