"""The peers of the comparison: everything here that can run a linear layer, each on copies of one weight.

A peer that is not installed, or that cannot take a shape, says so: it raises `NotRunError` with the
reason, which the table shows. Letters: M activation rows, K input features, N output channels.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import w8a16
from w8a16.core import output_tolerance, quantize_weight


class NotRunError(Exception):
    """Why a peer cannot run here."""


@dataclass(frozen=True)
class Layer:
    """A peer on one weight: how to call its copies, and the weight that it holds."""

    call: Callable[[int, Tensor], Any]
    """`(number of the call, x [M, K])`; the number chooses the copy."""
    held: Tensor
    """float64 `[N, K]`: the exact values of the weights that it multiplies with."""
    layers_per_call: int = 1
    """How many layers one call runs; more than one only where copies cannot be called one by one."""

    def first(self, x: Tensor) -> Tensor:
        """The output `[M, N]` of the first copy."""
        y: Any = self.call(0, x)
        return y[0] if isinstance(y, (tuple, list)) else y


@dataclass(frozen=True)
class Peer:
    """One way to run a linear layer."""

    name: str
    dtype: torch.dtype
    """Of the activations."""
    build: Callable[[Tensor, int], Layer]
    """`(float32 weight [N, K], how many copies)`."""
    weight_bytes: float
    """Bytes a weight takes in memory."""
    ours: bool = False
    note: str = ""
    """What it computes otherwise than the rest."""


def peers() -> list[Peer]:
    """All peers, ours first."""
    float32, bfloat16, float16 = torch.float32, torch.bfloat16, torch.float16
    return [
        Peer("w8a16 float32", float32, _ours(float32), 1, ours=True),
        Peer("w8a16 bfloat16", bfloat16, _ours(bfloat16), 1, ours=True),
        Peer("w8a16 float16", float16, _ours(float16), 1, ours=True),
        Peer("torch float32", float32, _torch(float32), 4),
        Peer("torch bfloat16", bfloat16, _torch(bfloat16), 2),
        Peer("torch float16", float16, _torch(float16), 2),
        Peer("torch int8pack", bfloat16, _int8pack, 1),
        Peer("torchao compiled", bfloat16, _torchao_compiled, 1),
        Peer("torchao frozen", bfloat16, _torchao_frozen, 1),
        Peer("quanto", bfloat16, _quanto, 1),
        Peer(
            "torch dynamic",
            float32,
            _dynamic,
            1,
            note="rounds the activations to 8 bits too: another computation",
        ),
    ]


def error_in_tolerances(layer: Layer, x: Tensor) -> float:
    """The largest error of a layer's output, in units of what docs/numerics.md allows.

    The exact output is that of the weights which the peer itself holds, so what counts is its
    arithmetic, not how it quantizes; see `weight_error` for that.
    """
    held = layer.held
    exact = x.double() @ held.T
    # With scales of one the codes may be any numbers: the bound is about sums of products.
    tolerance = output_tolerance(x, held, torch.ones(len(held), dtype=torch.float64))
    return float(((layer.first(x).double() - exact).abs() / tolerance).max())


def weight_error(layer: Layer, weight: Tensor) -> float:
    """How far the weights that a peer holds are from the float32 ones: relative, root mean square."""
    return float((layer.held - weight.double()).norm() / weight.double().norm())


def _ours(dtype: torch.dtype) -> Callable[[Tensor, int], Layer]:
    def build(weight: Tensor, copies: int) -> Layer:
        n, k = weight.shape
        layers = [
            w8a16.W8A16LinearLayer(k, n, bias=False, dtype=dtype).quantize(weight.to(dtype))
            for _ in range(copies)
        ]
        held = layers[0].int8_weights.double() * layers[0].scales.double().unsqueeze(1)
        return Layer(lambda call, x: layers[call % copies](x), held)

    return build


def _torch(dtype: torch.dtype) -> Callable[[Tensor, int], Layer]:
    def build(weight: Tensor, copies: int) -> Layer:
        layers = [_float_layer(weight, dtype) for _ in range(copies)]
        return Layer(lambda call, x: layers[call % copies](x), layers[0].weight.detach().double())

    return build


class Int8PackLayer(nn.Module):
    """torch's own operator for int8 weights as a layer, as `nn.Linear` is one around its operator."""

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def forward(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x, self.codes, self.scales)


def _int8pack(weight: Tensor, copies: int) -> Layer:
    """The law's codes; the operator wants the scales in the activations' dtype."""
    _refuse_ragged(weight)
    quantized = quantize_weight(weight.to(torch.bfloat16))
    codes, scales = quantized.int8_weights, quantized.scales.to(torch.bfloat16)
    layers = [Int8PackLayer(codes.clone(), scales) for _ in range(copies)]
    held = codes.double() * scales.double().unsqueeze(1)
    return Layer(lambda call, x: layers[call % copies](x), held)


def _refuse_ragged(weight: Tensor) -> None:
    """torch's operator, and whatever is built on it, reads past its inputs and may crash the process."""
    if weight.shape[1] % 8:
        raise NotRunError(f"K = {weight.shape[1]} is no multiple of 8, which crashes _weight_int8pack_mm")


def _torchao_compiled(weight: Tensor, copies: int) -> Layer:
    """torchao's weight-only int8 through torch.compile, as its documentation runs it."""
    layers = _torchao(weight, copies)
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64  # one graph for each M; past the limit it would run uncompiled
    compiled = torch.compile(nn.functional.linear, dynamic=False)
    weights = [layer.weight for layer in layers]
    return Layer(lambda call, x: compiled(x, weights[call % copies]), _torchao_held(weights[0]))


def _torchao_frozen(weight: Tensor, copies: int) -> Layer:
    """The same with the weights frozen into the graph and its kernels tuned; all copies are one graph."""
    layers = nn.ModuleList(_torchao(weight, copies)).eval()
    torch._dynamo.reset()

    def every_copy(x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in layers]

    options = {"freezing": True, "max_autotune": True, "max_autotune_report_choices_stats": False}
    compiled = torch.compile(every_copy, dynamic=False, options=options)
    return Layer(lambda call, x: compiled(x), _torchao_held(layers[0].weight), copies)


def _torchao(weight: Tensor, copies: int) -> list[nn.Linear]:
    quantization = _optional("torchao.quantization", "torchao")
    _refuse_ragged(weight)
    layers = [_float_layer(weight, torch.bfloat16) for _ in range(copies)]
    for layer in layers:
        quantization.quantize_(layer, quantization.Int8WeightOnlyConfig())
    return layers


def _torchao_held(weight: Any) -> Tensor:
    if not hasattr(weight, "qdata"):
        raise NotRunError(f"torchao made a {type(weight).__name__}, expected codes in `qdata`")
    return weight.qdata.double() * weight.scale.double().reshape(-1, 1)


def _quanto(weight: Tensor, copies: int) -> Layer:
    quanto = _optional("optimum.quanto", "optimum-quanto")
    _refuse_ragged(weight)
    layers = [nn.Sequential(_float_layer(weight, torch.bfloat16)) for _ in range(copies)]
    for layer in layers:
        quanto.quantize(layer, weights=quanto.qint8)
        quanto.freeze(layer)
    held = layers[0][0].weight
    return Layer(
        lambda call, x: layers[call % copies](x), held._data.double() * held._scale.double().reshape(-1, 1)
    )


def _dynamic(weight: Tensor, copies: int) -> Layer:
    """torch's dynamic quantization: int8 weights, and activations that are rounded to 8 bits at each call."""
    quantized = [
        torch.ao.quantization.quantize_dynamic(
            nn.Sequential(_float_layer(weight, torch.float32)), {nn.Linear}
        )
        for _ in range(copies)
    ]
    held = quantized[0][0].weight().dequantize().double()
    return Layer(lambda call, x: quantized[call % copies](x), held)


def _float_layer(weight: Tensor, dtype: torch.dtype) -> nn.Linear:
    n, k = weight.shape
    layer = nn.Linear(k, n, bias=False, dtype=dtype, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer.requires_grad_(False)


def _optional(module: str, package: str) -> Any:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise NotRunError(f"not installed: pip install {package}") from None
    return importlib.import_module(module)


def versions() -> dict[str, str | None]:
    """Versions of the packages behind the peers; None where one is not installed."""
    found: dict[str, str | None] = {}
    for package in ("w8a16", "torch", "torchao", "optimum-quanto"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the peers' warnings and log messages."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
