"""`nn.RNNCell`, `nn.LSTMCell` and `nn.GRUCell` with int8 weights, and the arithmetic of one step.

A step is two products with matrices and some arithmetic on the results. The products use the codes.

B batch, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from w8a16.kernels import apply_linear
from w8a16.layers.base import QuantizedModule


def _tanh(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """One step of an Elman net: the products `[B, H]` of input and hidden state to the next one."""
    return (torch.tanh(from_input + from_hidden),)


def _relu(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """The same with ReLU."""
    return (torch.relu(from_input + from_hidden),)


def _lstm(from_input: Tensor, from_hidden: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the products `[B, 4H]` and the cell state to the next hidden and cell state."""
    enters, forgets, proposed, leaves = (from_input + from_hidden).chunk(4, dim=-1)
    cell = torch.sigmoid(forgets) * cell + torch.sigmoid(enters) * torch.tanh(proposed)
    return torch.sigmoid(leaves) * torch.tanh(cell), cell


def _gru(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """One step of a GRU: the products `[B, 3H]` and the hidden state to the next one."""
    reset_in, keep_in, new_in = from_input.chunk(3, dim=-1)
    reset_hidden, keep_hidden, new_hidden = from_hidden.chunk(3, dim=-1)
    reset = torch.sigmoid(reset_in + reset_hidden)
    keep = torch.sigmoid(keep_in + keep_hidden)
    new = torch.tanh(new_in + reset * new_hidden)
    return (new + keep * (hidden - new),)


_STEPS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "RNN_TANH": _tanh,
    "RNN_RELU": _relu,
    "LSTM": _lstm,
    "GRU": _gru,
}
"""By the `mode` of `nn.RNNBase`."""


def run_steps(
    module: QuantizedModule,
    mode: str,
    suffix: str,
    sequence: Tensor,
    state: tuple[Tensor, ...],
    backwards: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer in one direction, with the weights `weight_ih`, `weight_hh` (and `weight_hr`) of this suffix.

    Everything is computed in float32 (float64 for float64) and rounded once to the dtype of the sequence.

    Args:
        module: holds the weights, by the names that `nn.RNNBase` gives them.
        mode: as in `nn.RNNBase`.
        suffix: of the names of the weights.
        sequence: `[T, ..., input_size]`.
        state: the state before the first step, `[..., hidden_size]`; of an LSTM, the cell state too.
        backwards: whether the last step comes first.

    Returns:
        The hidden states `[T, ..., hidden_size]`, and the state in the end.
    """
    dtype = torch.float64 if sequence.dtype == torch.float64 else torch.float32
    state = tuple(each.to(dtype) for each in state)
    from_input = _project(module, f"weight_ih{suffix}", f"bias_ih{suffix}", sequence.to(dtype))
    outputs = []
    for each in reversed(from_input.unbind()) if backwards else from_input.unbind():
        from_hidden = _project(module, f"weight_hh{suffix}", f"bias_hh{suffix}", state[0])
        hidden, *cell = _STEPS[mode](each, from_hidden, *state)
        if getattr(module, "proj_size", 0):
            hidden = _project(module, f"weight_hr{suffix}", None, hidden)
        state = (hidden, *cell)
        outputs.append(hidden)
    stacked = torch.stack(outputs[::-1] if backwards else outputs)
    return stacked.to(sequence.dtype), tuple(each.to(sequence.dtype) for each in state)


def _project(module: QuantizedModule, weight: str, bias: str | None, input: Tensor) -> Tensor:
    """`input` times the weight of that name, whether it is int8 or was kept float, plus the bias."""
    offset: Any = None if bias is None else getattr(module, bias, None)
    if weight in module.layouts:
        return apply_linear(input, module.codes_of(weight), module.scales_of(weight), offset)
    matrix: Any = getattr(module, weight)
    return functional.linear(
        input, matrix.to(input.dtype), None if offset is None else offset.to(input.dtype)
    )


class _Cell(QuantizedModule):
    """One step, batched `[B, input_size]` or not `[input_size]`, in the dtype of the input."""

    weight_names: ClassVar[tuple[str, ...]] = ("weight_ih", "weight_hh")
    input_size: int
    hidden_size: int

    def _step(self, mode: str, input: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        kind = self.float_type.__name__
        for role, each in (("input", input), *(("hidden state", each) for each in state or ())):
            if each.dim() not in (1, 2):
                raise ValueError(f"{kind}: expected {role} with 1 or 2 dimensions, got {each.dim()}")
        if state is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            state = (zeros, zeros) if mode == "LSTM" else (zeros,)
        for each in state:
            expected = (*input.shape[:-1], self.hidden_size)
            if each.shape != expected:
                raise RuntimeError(f"{kind}: expected hidden state {list(expected)}, got {list(each.shape)}")
        return run_steps(self, mode, "", input.unsqueeze(0), state)[1]


class W8A16RNNCell(_Cell, nn.RNNCell):
    """`nn.RNNCell` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.RNNCell

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """As `nn.RNNCell`: the next hidden state."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"RNNCell: expected the nonlinearity tanh or relu, got {self.nonlinearity!r}")
        (hidden,) = self._step(f"RNN_{self.nonlinearity.upper()}", input, None if hx is None else (hx,))
        return hidden


class W8A16LSTMCell(_Cell, nn.LSTMCell):
    """`nn.LSTMCell` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.LSTMCell

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """As `nn.LSTMCell`: the next hidden and cell state."""
        hidden, cell = self._step("LSTM", input, None if hx is None else tuple(hx))
        return hidden, cell


class W8A16GRUCell(_Cell, nn.GRUCell):
    """`nn.GRUCell` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.GRUCell

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """As `nn.GRUCell`: the next hidden state."""
        (hidden,) = self._step("GRU", input, None if hx is None else (hx,))
        return hidden
