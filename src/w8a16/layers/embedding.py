"""`nn.Embedding` and `nn.EmbeddingBag` with int8 rows: a lookup widens the rows that it returns, no more."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from w8a16.errors import DtypeError
from w8a16.kernels import apply_embedding
from w8a16.layers.base import QuantizedModule
from w8a16.layers.refined import refined_rows


def _rows(layer: Any, indices: Tensor) -> Tensor:
    """The rows of the table, within `max_norm`.

    The float layer shortens rows that are too long in the table itself, as it meets them; shortening
    what was looked up gives the same rows and leaves the table alone.
    """
    layout, tensors = layer.layouts["weight"], (layer.int8_weights, layer.scales)
    rows: Tensor
    if layout.refinement is None:
        rows = apply_embedding(indices, *tensors, layer.weight_dtype)
    else:
        rows = refined_rows(indices, *tensors, layout, layer.weight_dtype, layer.outliers_of("weight"))
    if layer.max_norm is None or rows.numel() == 0:
        return rows
    flat = rows.reshape(-1, rows.shape[-1])
    every = torch.arange(flat.shape[0], device=flat.device)
    return torch.embedding_renorm_(flat, every, layer.max_norm, layer.norm_type).reshape(rows.shape)


class W8A16Embedding(QuantizedModule, nn.Embedding):
    """An embedding whose table is int8, one scale for each row.

    `padding_idx` keeps its meaning (its row is an ordinary one in forward). `sparse` and
    `scale_grad_by_freq` concern the gradient of the table only, which an int8 table does not have.
    """

    float_type: ClassVar[type[nn.Module]] = nn.Embedding
    int8_weights: Tensor
    scales: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Indices `[...]` to rows `[..., embedding_dim]`, in the dtype that the float table had."""
        if not isinstance(input, Tensor):
            raise DtypeError(f"input: expected a tensor of indices, got {type(input).__name__}")
        if input.is_nested:
            jagged: Any = input
            rows = self.forward(jagged.values())
            result: Tensor = torch.nested.nested_tensor_from_jagged(rows, jagged.offsets(), jagged.lengths())
            return result
        return _rows(self, input)

    def write_weight(self, name: str, value: Tensor) -> None:
        """Quantize `value` into the table, which may change its length."""
        super().write_weight(name, value)
        shape = self.layouts[name].float_shape(tuple(self.int8_weights.shape))
        self.num_embeddings, self.embedding_dim = shape


class W8A16EmbeddingBag(QuantizedModule, nn.EmbeddingBag):
    """Sums, means or maxima of rows of an int8 table; only the rows in use are widened."""

    float_type: ClassVar[type[nn.Module]] = nn.EmbeddingBag
    int8_weights: Tensor
    scales: Tensor

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """As `nn.EmbeddingBag`: bags `[B, L]`, or indices `[T]` with the `offsets` of the bags."""
        rows = _rows(self, input.reshape(-1))
        options: dict[str, Any] = {"per_sample_weights": per_sample_weights, "mode": self.mode}
        if self.padding_idx is not None:
            # Padding is left out of the bag: renumbered, it becomes the row behind the last one.
            padding = self.padding_idx % self.num_embeddings
            position = torch.arange(rows.shape[0], device=input.device)
            position = torch.where(input.reshape(-1) == padding, rows.shape[0], position)
            rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
            options["padding_idx"] = rows.shape[0] - 1
        else:
            position = torch.arange(rows.shape[0], device=input.device)
        position = position.reshape(input.shape)
        if offsets is not None:
            offsets = offsets.to(position.dtype)
        return functional.embedding_bag(
            position, rows, offsets, include_last_offset=self.include_last_offset, **options
        )
