"""The speed of linear layers, float against int8: which shapes a model has, and how long each takes.

Letters: M activation rows (the batch size), K input features, N output channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w8a16.convert import plan, size
from w8a16.errors import ResourceError
from w8a16.layers import W8A16LinearLayer, kind_of_float
from w8a16.study.timing import Timing, available_memory, copies_beyond_cache, time_in_turn


@dataclass(frozen=True)
class LinearShape:
    """A shape of linear layers, and the layers that have it."""

    out_features: int
    in_features: int
    bias: bool = False
    names: tuple[str, ...] = ()
    """Paths of the layers in the model; empty for a shape given by hand."""

    @property
    def count(self) -> int:
        """How many layers have it; a shape given by hand stands for one."""
        return max(1, len(self.names))

    def __str__(self) -> str:
        return f"{self.out_features}x{self.in_features}"


@dataclass(frozen=True)
class Measurement:
    """One shape at one batch size: seconds a call, medians and minima."""

    shape: LinearShape
    batch: int
    dtype: torch.dtype
    float_time: Timing
    int8_time: Timing

    @property
    def speedup(self) -> float:
        """How many times faster than float int8 is, by the medians."""
        return self.float_time.median / self.int8_time.median

    @property
    def int8_bytes(self) -> int:
        """Bytes that the int8 layer must read and write: codes, scales, bias, activations."""
        n, k, element = self.shape.out_features, self.shape.in_features, self.dtype.itemsize
        return n * k + 4 * n + self.shape.bias * n * element + self.batch * (n + k) * element

    @property
    def operations(self) -> int:
        """Multiplications and additions: 2 M N K."""
        return 2 * self.batch * self.shape.out_features * self.shape.in_features


@dataclass(frozen=True)
class ModelShapes:
    """The linear layers of a model by shape, the largest part of the model first."""

    shapes: tuple[LinearShape, ...]
    kept_float: tuple[str, ...]
    """Paths of linear layers that `quantize` leaves float."""


def linear_shapes(model: nn.Module) -> ModelShapes:
    """Group the linear layers that `quantize(model)` would convert by shape; reads no weights.

    Args:
        model: any module; the meta device will do.

    Example:
        >>> model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16), nn.Linear(16, 64))
        >>> [(str(shape), shape.names) for shape in linear_shapes(model).shapes]
        [('64x16', ('0', '3')), ('16x64', ('2',))]
    """
    int8 = {
        name
        for row in plan(model).rows
        if row.verdict == "int8"
        for name in (row.name, *row.aliases)  # a tied weight is one row
    }
    groups: dict[tuple[int, int, bool], list[str]] = {}
    kept = []
    for path, module in model.named_modules():
        if not _is_linear(module):
            continue
        if (f"{path}.weight" if path else "weight") in int8:
            key = (module.out_features, module.in_features, module.bias is not None)
            groups.setdefault(key, []).append(path)
        else:
            kept.append(path)
    shapes = [LinearShape(*key, tuple(names)) for key, names in groups.items()]
    shapes.sort(key=lambda shape: -shape.count * shape.out_features * shape.in_features)
    return ModelShapes(tuple(shapes), tuple(kept))


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, W8A16LinearLayer):
        return True
    kind = kind_of_float(type(module))
    return kind is not None and kind.name == "linear"


def measure_linear(
    shape: LinearShape, dtype: torch.dtype, batches: Sequence[int], seconds: float
) -> Iterator[Measurement]:
    """Time the float layer and the int8 layer of one shape, in turn, at each batch size.

    Args:
        shape: what to time; the weights are random.
        dtype: of the activations and of the float layer.
        batches: numbers of activation rows (M).
        seconds: about how long to measure, all batch sizes together; each gets three rounds at least.

    Yields:
        One `Measurement` for each batch size.

    Raises:
        ResourceError: the layers do not fit into the available memory (see `check_memory`).
    """
    check_memory(shape, dtype, batches)
    floats, int8s = _layers(shape, dtype)
    for batch in batches:
        x = torch.randn(batch, shape.in_features).to(dtype)
        with torch.inference_mode():
            timings = time_in_turn(
                {"float": _calls(floats, x), "int8": _calls(int8s, x)}, seconds / len(batches)
            )
        yield Measurement(shape, batch, dtype, timings["float"], timings["int8"])


def check_memory(shape: LinearShape, dtype: torch.dtype, batches: Sequence[int]) -> None:
    """Refuse, with `ResourceError`, a shape whose copies do not fit into the available memory."""
    n, k = shape.out_features, shape.in_features
    floats, int8s = copies_beyond_cache(n * k * dtype.itemsize), copies_beyond_cache(n * k)
    rows = max(batches, default=0)
    needed = n * k * (floats * dtype.itemsize + int8s) + 2 * rows * (n + k) * dtype.itemsize
    available = available_memory()
    if available is not None and needed > 0.9 * available:
        raise ResourceError(
            f"a layer of {shape}: needs {size(needed)} to be timed at batch {rows}, {size(available)} are "
            "available; name smaller shapes"
        )


def _layers(shape: LinearShape, dtype: torch.dtype) -> tuple[list[nn.Module], list[nn.Module]]:
    """Copies of the float and of the int8 layer, more of each than the cache holds."""
    n, k = shape.out_features, shape.in_features
    weight = random_weight(n, k, dtype)
    float_layer = nn.Linear(k, n, bias=shape.bias, dtype=dtype, device="meta").to_empty(device="cpu")
    int8_layer = W8A16LinearLayer(k, n, bias=shape.bias, dtype=dtype).quantize(weight)
    with torch.no_grad():
        float_layer.weight.copy_(weight)
        if float_layer.bias is not None:
            float_layer.bias.zero_()
    return _copies(float_layer, n * k * dtype.itemsize), _copies(int8_layer, n * k)


def _copies(layer: nn.Module, weight_bytes: int) -> list[nn.Module]:
    return [layer, *(copy.deepcopy(layer) for _ in range(copies_beyond_cache(weight_bytes) - 1))]


def random_weight(n: int, k: int, dtype: torch.dtype) -> Tensor:
    """A weight `[N, K]` of Gaussian numbers, a million of them over and over: their values cost no time."""
    pattern = (0.02 * torch.randn(min(n * k, 1 << 20))).to(dtype)
    return pattern.repeat(-(-n * k // len(pattern)))[: n * k].view(n, k)


def _calls(layers: list[nn.Module], x: Tensor) -> Callable[[int], object]:
    return lambda call: layers[call % len(layers)](x)
