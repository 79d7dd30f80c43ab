"""Layers of every kind of convolution, recurrent net and bilinear layer, with inputs that suit them.

Random biases and unequal sizes, so that nothing at the wrong place goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Case(NamedTuple):
    """How to make a float layer, and its inputs."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    rows: Callable[[Tensor], Tensor] = lambda weight: weight.flatten(1)
    """The rows of a float weight that have a scale each, `[N, everything else]`."""

    @property
    def float_type(self) -> type[nn.Module]:
        """The class of the float layer."""
        with torch.device("meta"):
            return type(self.make())


def transposed_rows(groups: int) -> Callable[[Tensor], Tensor]:
    """The output channels of `[C, N/g, *kernel]`, written in another way than the layout does it."""

    def rows(weight: Tensor) -> Tensor:
        inputs, outputs = weight.shape[0] // groups, weight.shape[1]
        channels = [
            weight[group * inputs : (group + 1) * inputs, output].flatten()
            for group in range(groups)
            for output in range(outputs)
        ]
        return torch.stack(channels)

    return rows


def images(*shape: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(shape),)


def _conv(kind: type[nn.Module], dimensions: int, **options: Any) -> Case:
    groups = options.get("groups", 1)
    rows = transposed_rows(groups) if "Transpose" in kind.__name__ else lambda weight: weight.flatten(1)
    spatial = (9, 8, 7)[:dimensions]
    return Case(lambda: kind(6, 8, 3, **options), images(2, 6, *spatial), rows)


def _recurrent(kind: type[nn.RNNBase], steps: int, **options: Any) -> Case:
    batch = 1 if steps == 1 else 3
    return Case(lambda: kind(10, 12, **options), lambda: (torch.randn(steps, batch, 10),))


def _cell(kind: type[nn.Module], states: int) -> Case:
    def inputs() -> tuple[Any, ...]:
        state = tuple(torch.randn(3, 12) for _ in range(states))
        return torch.randn(3, 10), state if states == 2 else state[0]

    return Case(lambda: kind(10, 12), inputs)


CASES = {
    "conv1d": _conv(nn.Conv1d, 1, padding="same"),
    "conv2d": _conv(nn.Conv2d, 2, groups=2, padding=1, padding_mode="reflect"),
    "conv3d": _conv(nn.Conv3d, 3, stride=2, dilation=2),
    "conv_transpose1d": _conv(nn.ConvTranspose1d, 1, stride=2, output_padding=1),
    "conv_transpose2d": _conv(nn.ConvTranspose2d, 2, groups=2, stride=2),
    "conv_transpose3d": _conv(nn.ConvTranspose3d, 3, padding=1, bias=False),
    "rnn": _recurrent(nn.RNN, 4, nonlinearity="relu", bidirectional=True),
    "lstm": _recurrent(nn.LSTM, 4, num_layers=2, bidirectional=True, proj_size=5),
    "lstm, one step": _recurrent(nn.LSTM, 1, num_layers=2, bidirectional=True, proj_size=5),
    "gru": _recurrent(nn.GRU, 4, num_layers=2),
    "gru, one step": _recurrent(nn.GRU, 1, num_layers=2),
    "rnn_cell": _cell(nn.RNNCell, 1),
    "lstm_cell": _cell(nn.LSTMCell, 2),
    "gru_cell": _cell(nn.GRUCell, 1),
    "bilinear": Case(lambda: nn.Bilinear(7, 9, 5), lambda: (torch.randn(4, 3, 7), torch.randn(4, 3, 9))),
}
