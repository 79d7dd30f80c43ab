"""The one table of layer kinds: which float class becomes which quantized class.

To add a kind, write one small file with a `QuantizedModule` and add a row here;
docs/adding-a-layer-kind.md shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from w8a16.layers.attention import W8A16MultiheadAttention
from w8a16.layers.base import QuantizedModule
from w8a16.layers.bilinear import W8A16Bilinear
from w8a16.layers.conv import (
    W8A16Conv1d,
    W8A16Conv2d,
    W8A16Conv3d,
    W8A16ConvTranspose1d,
    W8A16ConvTranspose2d,
    W8A16ConvTranspose3d,
)
from w8a16.layers.embedding import W8A16Embedding, W8A16EmbeddingBag
from w8a16.layers.expert_layouts import has_experts
from w8a16.layers.experts import W8A16Experts
from w8a16.layers.linear import W8A16LinearLayer
from w8a16.layers.parameters import W8A16Parameters
from w8a16.layers.recurrent import W8A16GRU, W8A16LSTM, W8A16RNN
from w8a16.layers.recurrent_cells import W8A16GRUCell, W8A16LSTMCell, W8A16RNNCell
from w8a16.layers.transposed_linear import W8A16TransposedLinear


@dataclass(frozen=True)
class LayerKind:
    """One row: a float class and how its weights are held in int8."""

    name: str
    float_type: type[nn.Module] | str
    """The class, or its full name where it belongs to a library that is not imported here."""
    quantized_type: type[QuantizedModule]
    tier: str
    """"compute": a kernel uses the int8 codes directly; "storage": dequantized on use."""
    matches: Callable[[nn.Module], bool] | None = None
    """Recognises a module by its structure, for kinds without one float class; `float_type` is words then."""

    refinable: bool = False
    """Whether its weight can be held in groups or with outliers, see `Layout`."""

    @property
    def float_name(self) -> str:
        """The name of the float class, for people."""
        return (
            self.float_type.rpartition(".")[2]
            if isinstance(self.float_type, str)
            else self.float_type.__name__
        )


PARAMETER = LayerKind("parameter", nn.Module, W8A16Parameters, "storage")
"""Parameters of modules of any class: what is left when no other kind fits."""

KINDS: tuple[LayerKind, ...] = (
    LayerKind("linear", nn.Linear, W8A16LinearLayer, "compute", refinable=True),
    LayerKind(
        "transposed_linear",
        "transformers.pytorch_utils.Conv1D",
        W8A16TransposedLinear,
        "compute",
        refinable=True,
    ),
    LayerKind("attention", nn.MultiheadAttention, W8A16MultiheadAttention, "compute"),
    LayerKind("embedding", nn.Embedding, W8A16Embedding, "compute", refinable=True),
    LayerKind("embedding_bag", nn.EmbeddingBag, W8A16EmbeddingBag, "compute", refinable=True),
    LayerKind("experts", "module of fused experts", W8A16Experts, "compute", has_experts),
    LayerKind("conv1d", nn.Conv1d, W8A16Conv1d, "storage"),
    LayerKind("conv2d", nn.Conv2d, W8A16Conv2d, "storage"),
    LayerKind("conv3d", nn.Conv3d, W8A16Conv3d, "storage"),
    LayerKind("conv_transpose1d", nn.ConvTranspose1d, W8A16ConvTranspose1d, "storage"),
    LayerKind("conv_transpose2d", nn.ConvTranspose2d, W8A16ConvTranspose2d, "storage"),
    LayerKind("conv_transpose3d", nn.ConvTranspose3d, W8A16ConvTranspose3d, "storage"),
    LayerKind("rnn", nn.RNN, W8A16RNN, "storage"),
    LayerKind("lstm", nn.LSTM, W8A16LSTM, "storage"),
    LayerKind("gru", nn.GRU, W8A16GRU, "storage"),
    LayerKind("rnn_cell", nn.RNNCell, W8A16RNNCell, "compute"),
    LayerKind("lstm_cell", nn.LSTMCell, W8A16LSTMCell, "compute"),
    LayerKind("gru_cell", nn.GRUCell, W8A16GRUCell, "compute"),
    LayerKind("bilinear", nn.Bilinear, W8A16Bilinear, "compute"),
    PARAMETER,
)

_BY_FLOAT_TYPE = {kind.float_type: kind for kind in KINDS if kind is not PARAMETER and kind.matches is None}
_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of_float(float_type: type[nn.Module]) -> LayerKind | None:
    """The kind of a class: its own, or that of the nearest class it inherits from."""
    return _kind_and_anchor(float_type)[0]


def kind_of_module(module: nn.Module) -> LayerKind | None:
    """The kind of a float module: that of its class, or else the one that recognises its structure."""
    kind = kind_of_float(type(module))
    if kind is not None or not (module._parameters or is_parametrized(module)):
        return kind
    return next((kind for kind in KINDS if kind.matches is not None and kind.matches(module)), None)


def anchor_of(float_type: type[nn.Module], kind: LayerKind) -> type[nn.Module]:
    """The class that gives `float_type` its kind: itself, or the nearest one it inherits from."""
    if kind.matches is not None:
        return kind.quantized_type.anchor(float_type)
    return _kind_and_anchor(float_type)[1]


def _kind_and_anchor(float_type: type[nn.Module]) -> tuple[LayerKind | None, type[nn.Module]]:
    for cls in float_type.__mro__:
        kind = _BY_FLOAT_TYPE.get(cls) or _BY_FLOAT_TYPE.get(f"{cls.__module__}.{cls.__qualname__}")
        if kind is not None:
            return kind, cls
    return None, nn.Module


def kind_of_quantized(module: nn.Module) -> LayerKind | None:
    """The kind of a module that is already quantized."""
    for cls in type(module).__mro__:
        for kind in KINDS:
            if kind.quantized_type is cls:
                return kind
    return None


def kind_named(name: str) -> LayerKind | None:
    """The kind with this name, as manifests record it."""
    return _BY_NAME.get(name)


def tier_of(float_type: type[nn.Module], kind: LayerKind) -> str:
    """ "compute" or "storage" for modules of this class: a subclass may compute with the float weight."""
    anchor = anchor_of(float_type, kind)
    if kind.tier == "storage" or float_type.forward is anchor.forward:
        return kind.tier
    code = getattr(float_type.forward, "__code__", None)
    uses_codes = code is not None and ("weight" not in code.co_names or "linear" in code.co_names)
    return "compute" if uses_codes else "storage"
