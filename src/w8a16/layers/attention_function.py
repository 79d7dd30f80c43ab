"""`torch.nn.functional.multi_head_attention_forward` with weights of int8 layers, used as they lie.

Model code calls this function with weights that it reads from its layers: attention pooling does, and so
does `nn.MultiheadAttention` itself where only its `out_proj` is int8.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from w8a16.kernels import apply_linear
from w8a16.layers.attention_heads import Sequences, Settings, attention, project_packed
from w8a16.layers.float_weight import FloatWeight, serve
from w8a16.layers.layout import ROWS


def _multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """The signature is torch's; inputs are `[L, B, E]`, or `[L, E]` for one sequence."""
    if static_k is not None or static_v is not None or any(map(_has_values, (bias_k, bias_v, in_proj_bias))):
        return NotImplemented
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else (in_proj_weight,)
    if not all(_is_usable(weight) for weight in (*weights, out_proj_weight)):
        return NotImplemented
    sequences = Sequences(num_heads, batch_first=False, is_batched=query.dim() == 3)
    sequences.check(query, key, value)
    width = embed_dim_to_check
    if use_separate_proj_weight:
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.split(width)
        q, k, v = (
            _apply(x, weight, bias)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
    else:

        def rows(x: Tensor, start: int, stop: int) -> Tensor:
            bias = None if in_proj_bias is None else in_proj_bias[start:stop]
            return _apply(x, in_proj_weight, bias, slice(start, stop))

        q, k, v = project_packed(query, key, value, width, rows)
    tokens = None if bias_k is None or bias_v is None else (bias_k, bias_v)
    dropout = dropout_p if training else 0.0
    settings = Settings(need_weights, average_attn_weights, dropout, tokens, add_zero_attn)
    attended, attention_weights = attention(
        (q, k, v), sequences, settings, attn_mask, key_padding_mask, is_causal
    )
    return _apply(attended, out_proj_weight, out_proj_bias), attention_weights


def _is_usable(weight: Tensor | None) -> bool:
    if isinstance(weight, FloatWeight):
        return weight._is_lazy and weight._layout == ROWS and weight.dim() == 2
    return weight is not None


def _has_values(tensor: Tensor | None) -> bool:
    return isinstance(tensor, FloatWeight)


def _apply(input: Tensor, weight: Any, bias: Tensor | None, rows: slice = slice(None)) -> Tensor:
    if isinstance(weight, FloatWeight):
        return apply_linear(input, weight._codes[rows], weight._scales[rows], bias)
    return functional.linear(input, weight[rows], bias)


serve(_multi_head_attention_forward, functional.multi_head_attention_forward)
