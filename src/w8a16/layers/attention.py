"""`nn.MultiheadAttention` with int8 projections.

torch's own forward reads the weights as tensors, for a fused kernel or for `F.linear`. This one calls
the int8 kernel on the codes: once for queries, keys and values where they are the same tensor, else on
slices of the codes, which are views. `out_proj` is a module of its own and is called as one.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from w8a16.errors import UsageError
from w8a16.kernels import apply_linear
from w8a16.layers.attention_heads import (
    Projected,
    Sequences,
    Settings,
    attention,
    project_packed,
)
from w8a16.layers.base import QuantizedModule
from w8a16.layers.layout import ROWS, Layout, rows_of_last_dimension

_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_EXTRA_TOKENS = ("bias_k", "bias_v")


class W8A16MultiheadAttention(QuantizedModule, nn.MultiheadAttention):
    """Multi-head attention whose weights are int8, each as it is in the float module.

    `in_proj_weight` `[3E, E]`, or `q_proj_weight`, `k_proj_weight` and `v_proj_weight` where keys or
    values have another width; `bias_k` and `bias_v` (a key and a value that every sequence gets) are
    dequantized when they are used. A weight that was excluded stays a parameter and is used as one.
    """

    float_type: ClassVar[type[nn.Module]] = nn.MultiheadAttention
    in_proj_bias: Tensor | None  # type: ignore[assignment]  # nn.MultiheadAttention forgets that it may be None
    weight_names: ClassVar[tuple[str, ...]] = ("in_proj_weight", *_PROJECTIONS, *_EXTRA_TOKENS)

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """A scale for each output channel of a projection, and one for each extra token."""
        tokens = dict.fromkeys(_EXTRA_TOKENS, rows_of_last_dimension(3))
        return {**dict.fromkeys(("in_proj_weight", *_PROJECTIONS), ROWS), **tokens}

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`; the output has the dtype of the query.

        Raises:
            ShapeError: queries, keys, values or masks do not fit each other or the weights.
            DtypeError: a mask that is neither bool nor float, or an input that is not float.
            UsageError: `is_causal` without `attn_mask`; nested input with a mask or of another kind
                than torch's attention takes.
        """
        settings = Settings(
            need_weights,
            average_attn_weights,
            self.dropout if self.training else 0.0,
            self._extra_tokens(query.dtype),
            self.add_zero_attn,
        )
        if query.is_nested or key.is_nested or value.is_nested:
            if attn_mask is not None or key_padding_mask is not None or is_causal:
                raise UsageError("nested input: expected no masks, the lengths of the sequences say it all")
            return self._attend_nested(query, key, value, settings)
        sequences = Sequences(self.num_heads, self.batch_first, query.dim() == 3)
        sequences.check(query, key, value)
        projected = self._project(query, key, value)
        attended, weights = attention(projected, sequences, settings, attn_mask, key_padding_mask, is_causal)
        if self.training and self.batch_first and sequences.is_batched:
            # Dropout draws in the order of memory: after torch's module, which computes sequence first.
            return self.out_proj(attended.transpose(0, 1).contiguous()).transpose(0, 1), weights
        return self.out_proj(attended), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> Projected:
        width, bias = self.embed_dim, self.in_proj_bias
        if self._qkv_same_embed_dim:
            return project_packed(query, key, value, width, self._rows)
        q, k, v = (None, None, None) if bias is None else bias.split(width)
        return (
            self._apply_weight("q_proj_weight", query, q),
            self._apply_weight("k_proj_weight", key, k),
            self._apply_weight("v_proj_weight", value, v),
        )

    def _rows(self, input: Tensor, start: int, stop: int) -> Tensor:
        bias = None if self.in_proj_bias is None else self.in_proj_bias[start:stop]
        return self._apply_weight("in_proj_weight", input, bias, slice(start, stop))

    def _apply_weight(
        self, name: str, input: Tensor, bias: Tensor | None, rows: slice = slice(None)
    ) -> Tensor:
        if name not in self.layouts:
            return functional.linear(input, getattr(self, name)[rows], bias)
        return apply_linear(input, self.codes_of(name)[rows], self.scales_of(name)[rows], bias)

    def _extra_tokens(self, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        tokens = [
            self.dequantized(name, dtype) if name in self.layouts else self._parameters.get(name)
            for name in _EXTRA_TOKENS
        ]
        return None if tokens[0] is None or tokens[1] is None else (tokens[0], tokens[1])

    def _attend_nested(
        self, query: Tensor, key: Tensor, value: Tensor, settings: Settings
    ) -> tuple[Tensor, Tensor | None]:
        """Self-attention over sequences of different lengths; the weights are padded with zeros.

        The sequences lie behind one another for the projections, so that every weight is read once.
        """
        if query is not key or key is not value or query.layout != torch.strided or not self.batch_first:
            raise UsageError(
                "nested input: expected batch_first and one and the same tensor of layout torch.strided as "
                "query, key and value; use padded tensors and masks for all else"
            )
        sequences = Sequences(self.num_heads, batch_first=True, is_batched=False)
        parts = query.unbind()
        lengths = [part.shape[0] for part in parts]
        flat = torch.cat(parts)
        projected = zip(*(x.split(lengths) for x in self._project(flat, flat, flat)), strict=True)
        results = [attention((q, k, v), sequences, settings) for q, k, v in projected]
        output = self.out_proj(torch.cat([attended for attended, _ in results]))
        weights = [
            functional.pad(each, (0, max(lengths) - length, 0, max(lengths) - length))
            for length, (_, each) in zip(lengths, results, strict=True)
            if each is not None
        ]
        nested = torch.nested.as_nested_tensor(list(output.split(lengths)))
        return nested, torch.stack(weights) if weights else None
