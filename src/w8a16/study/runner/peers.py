"""Other libraries' 8-bit weights on the same models: those that are installed, the others are listed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.study.runner.rows import Scored, ScoredModel, scored
from w8a16.study.runner.settings import installed


def peer_rows(model: nn.Module, scored_model: ScoredModel) -> Iterator[Scored]:
    """One row for each library, float32 activations."""
    for name, apply in PEERS.items():
        row: dict[str, Any] = {"peer": name, "version": installed(name), "dtype": "float32"}
        if row["version"] is None:
            yield Scored({**row, "score": None, "loss": None, "note": "not installed"})
            continue
        try:
            changed = apply(copy.deepcopy(model))
            scores = scored_model.score(changed, "float32")
        except Exception as error:  # another library's failure is a finding, whatever it raises
            note = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
            yield Scored({**row, "score": None, "loss": None, "note": note})
            continue
        held = held_bytes(changed)
        untouched = {"note": "no weight was converted"} if held == held_bytes(model) else {}
        yield scored({**row, "bytes": held, **untouched}, scores, scored_model.reference)


def held_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers, those inside tensor subclasses included, ties once."""
    blocks: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for plain in _plain_tensors(tensor):
            blocks[plain.untyped_storage().data_ptr()] = plain.numel() * plain.element_size()
    return sum(blocks.values())


def _plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        scales = getattr(tensor, "SCB", None)  # bitsandbytes keeps them as an attribute of the weight
        yield from () if scales is None else (scales,)
        return
    for name in flatten()[0]:
        yield from _plain_tensors(getattr(tensor, name))


def _torchao(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # noqa: PLC0415

    quantize_(model, Int8WeightOnlyConfig())
    return model


def _quanto(model: nn.Module) -> nn.Module:
    from optimum.quanto import freeze, qint8, quantize  # noqa: PLC0415

    quantize(model, weights=qint8)
    freeze(model)
    return model


def _bitsandbytes(model: nn.Module) -> nn.Module:
    from bitsandbytes.nn import Linear8bitLt  # noqa: PLC0415

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                layer = Linear8bitLt(
                    child.in_features, child.out_features, child.bias is not None, has_fp16_weights=False
                )
                layer.load_state_dict(child.state_dict())
                setattr(parent, name, layer.to("cpu"))
    return model


def _sdnq(model: nn.Module) -> nn.Module:
    from sdnq import sdnq_post_load_quant  # noqa: PLC0415

    quantized: nn.Module = sdnq_post_load_quant(
        model, weights_dtype="int8", torch_dtype=torch.float32, quant_device="cpu", return_device="cpu"
    )
    return quantized


PEERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torchao": _torchao,
    "optimum-quanto": _quanto,
    "bitsandbytes": _bitsandbytes,
    "sdnq": _sdnq,
}
"""Distribution name to what quantizes a model in place, as that library's own documentation does it."""
