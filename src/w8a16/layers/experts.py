"""The experts of a mixture-of-experts layer, fused into one parameter a projection, with int8 weights.

Each expert's output channels have their own scales. Classes made by transformers' decorator get a
forward of their own, whatever implementation their configuration names: tokens are sorted by expert,
and each projection is one call for all experts, which reads the codes of those in use only. Other
classes keep their forward; what they take out of the weights are still codes (`float_weight.py`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from w8a16.kernels import grouped_linear
from w8a16.layers.base import QuantizedModule
from w8a16.layers.expert_layouts import (
    dispatched_class,
    expert_layouts,
    forwards_by_dispatch,
    projections,
)
from w8a16.layers.layout import Layout


class W8A16Experts(QuantizedModule):
    """Fused experts of any class; codes `[E, out, in]`, scales `[E, out]`, however the floats lay."""

    float_type: ClassVar[type[nn.Module]] = nn.Module
    weight_names: ClassVar[tuple[str, ...]] = ()

    # What transformers' decorator says on every instance of its classes.
    has_gate: bool
    has_bias: bool
    act_fn: Any
    post_expert_norm: Any
    _apply_gate: Any
    float_forward: Any
    """The forward that transformers' decorator made."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Give a class its own forward only where the float class would have asked transformers for one."""
        super().__init_subclass__(**options)
        if forwards_by_dispatch(cls.float_type):
            cls.float_forward = cls.float_type.forward
            cls.forward = W8A16Experts.grouped_forward

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """As the decorator says, or as the shapes tell."""
        return expert_layouts(module)

    @classmethod
    def anchor(cls, float_type: type[nn.Module]) -> type[nn.Module]:
        """The class below which the int8 forward goes: a subclass with its own forward keeps that."""
        return dispatched_class(float_type) or float_type

    def grouped_forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """`[T, hidden]` through the experts `top_k_index` `[T, k]`, weighted and summed; dtype of the input.

        An index beyond the last expert stands for an expert of another device: it adds nothing.
        """
        up, down = projections(self)
        if up not in self.layouts or down not in self.layouts:
            # Converted in part: transformers' own, with the int8 weight dequantized.
            result: Tensor = self.float_forward(hidden_states, top_k_index, top_k_weights)
            return result
        tokens, choices = top_k_index.shape
        expert, order = torch.sort(top_k_index.reshape(-1))
        ends = torch.arange(self.codes_of(up).shape[0] + 1, dtype=expert.dtype, device=expert.device)
        offsets = torch.searchsorted(expert, ends)
        hidden = self._project(up, hidden_states[order // choices], offsets)
        hidden = self._apply_gate(hidden) if self.has_gate else self.act_fn(hidden)
        hidden = self._project(down, hidden, offsets)
        if getattr(self, "has_post_expert_norm", False):
            hidden = self.post_expert_norm(hidden)
        weighted = hidden * top_k_weights.reshape(-1)[order].unsqueeze(-1)
        position = torch.empty_like(order)
        position[order] = torch.arange(order.shape[0], device=order.device)
        summed: Tensor = weighted[position].view(tokens, choices, weighted.shape[-1]).sum(dim=1)
        return summed.to(hidden_states.dtype)

    def _project(self, name: str, input: Tensor, offsets: Tensor) -> Tensor:
        bias = getattr(self, f"{name}_bias") if self.has_bias else None
        return grouped_linear(input, self.codes_of(name), self.scales_of(name), bias, offsets)
