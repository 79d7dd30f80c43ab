"""Which layers of a model write a channel and which read it, as far as one run can tell.

A source is a set of parameters that scale an output channel; a reader is a set of weights that are given
the same tensor, and the columns with which they read a channel of it.

Letters: N output channels (rows), K input features (columns).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from torch import Tensor, nn

from w8a16.study.variants.float_rows import FloatRows, float_rows

Undo = Callable[[], None]

_READING = ("weight", "in_proj_weight", "weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
_READING_KINDS = ("linear", "transposed_linear", "attention", "rnn", "lstm", "gru")
_READING_FAMILIES = ("conv", "rnn_cell", "lstm_cell", "gru_cell")


@dataclass(frozen=True)
class Source:
    """What the output channels of one module are scaled by."""

    order: int
    """When the module was called first."""
    channels: tuple[Tensor, ...]
    """Views of parameters whose first dimension counts the channels."""

    @property
    def width(self) -> int:
        """The number of channels."""
        return len(self.channels[0])

    def scale(self, j: int, factor: float) -> Undo:
        """Multiply channel j; returns what puts it back."""
        views = [tensor[j] for tensor in self.channels]
        before = [view.clone() for view in views]
        for view in views:
            view.mul_(factor)

        def undo() -> None:
            for view, values in zip(views, before, strict=True):
                view.copy_(values)

        return undo


@dataclass(frozen=True)
class Reader:
    """The weights that read one tensor."""

    order: int
    width: int
    weights: tuple[FloatRows, ...]

    def scale(self, j: int, factor: float) -> Undo:
        """Multiply the columns that read channel j; returns what puts them back."""
        before = [weight.read().clone() for weight in self.weights]
        for weight, values in zip(self.weights, before, strict=True):
            rows = values.clone()
            taps = weight.shape[1] // self.width  # of a convolution, those of one input channel
            rows[:, j * taps : (j + 1) * taps] *= factor
            weight.write(rows)

        def undo() -> None:
            for weight, values in zip(self.weights, before, strict=True):
                weight.write(values)

        return undo


def readers_and_sources(model: nn.Module, run: Callable[[], object]) -> tuple[list[Reader], list[Source]]:
    """Run the model once and list both, in the order of the calls."""
    own: dict[int, list[FloatRows]] = {}
    for weight in float_rows(model):
        if not weight.is_computed:
            own.setdefault(id(weight.module), []).append(weight)
    grouped: dict[tuple[Hashable, int], list[tuple[int, FloatRows]]] = {}
    sources: list[Source] = []
    for order, (module, given) in enumerate(_calls(model, run)):
        weights = own.get(id(module), [])
        for weight in weights:
            if _reads(weight):
                grouped.setdefault((given, _width(weight)), []).append((order, weight))
        sources += [Source(order, views) for views in _channels(module, weights)]
        if isinstance(module, nn.MultiheadAttention):  # its output projection is used without being called
            for weight in own.get(id(module.out_proj), []):
                grouped[id(module.out_proj), _width(weight)] = [(order + 1, weight)]
    readers = [
        Reader(min(order for order, _ in group), width, tuple(weight for _, weight in group))
        for (_, width), group in grouped.items()
    ]
    return readers, sources


def _calls(model: nn.Module, run: Callable[[], object]) -> list[tuple[nn.Module, Hashable]]:
    """The modules in the order in which they first return, each with what tells its input tensor."""
    calls: dict[int, tuple[nn.Module, Hashable]] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def seen(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], _: object) -> None:
        given = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        if given is not None and id(module) not in calls:
            alive.append(given)
            calls[id(module)] = (module, (given.data_ptr(), given.numel()))

    hooks = [module.register_forward_hook(seen, with_kwargs=True) for module in model.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return list(calls.values())


def _reads(weight: FloatRows) -> bool:
    known = weight.kind in _READING_KINDS or weight.kind.startswith(_READING_FAMILIES)
    return known and weight.attribute in _READING


def _width(weight: FloatRows) -> int:
    """The channels that a weight reads."""
    if weight.kind.startswith("conv"):
        codes = weight.layout.codes_shape(tuple(weight.parameter.shape))
        return int(codes[weight.layout.lead])
    return weight.shape[1]


def _channels(module: nn.Module, weights: list[FloatRows]) -> list[tuple[Tensor, ...]]:
    """The sets of channels that a module writes: all, and the last half or third of fused projections."""
    weight = module._parameters.get("weight")
    bias = module._parameters.get("bias")
    if weight is not None and weight.dim() == 1:  # a norm
        return [_views(weight, bias)]
    if isinstance(module, nn.MultiheadAttention):
        weight, bias = module.in_proj_weight, module.in_proj_bias
    elif not any(w.attribute == "weight" and _reads(w) and w.layout.groups == 1 for w in weights):
        return []
    if weight is None:
        return []
    rows = weight.transpose(0, 1) if any(w.layout.swapped for w in weights) else weight
    whole = _views(rows, bias)
    parts = [len(rows) - len(rows) // n for n in (2, 3) if len(rows) % n == 0]
    return [whole, *(tuple(view[start:] for view in whole) for start in parts)]


def _views(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor.detach() for tensor in (weight, bias) if tensor is not None)
