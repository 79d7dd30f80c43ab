"""`nn.RNN`, `nn.LSTM` and `nn.GRU` with int8 weights.

A sequence uses every weight once for each of its steps. Large weights are read so slowly that each step
uses the codes directly (`recurrent_cells.py`): a quarter of the bytes is worth more than an operator that
runs all steps. So do few steps, as in decoding. Otherwise the weights are dequantized at the start, then
torch's own operator runs.

The float classes keep their parameters a second time, in the list `_flat_weights`. Here that list is
made when it is asked for, so that no float weight stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from w8a16.core import QuantizedWeight
from w8a16.errors import DtypeError
from w8a16.kernels import select
from w8a16.layers.base import QuantizedModule
from w8a16.layers.layout import ROWS, Layout
from w8a16.layers.quantizing import HeldWeight
from w8a16.layers.recurrent_cells import run_steps

_OPERATORS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_WEIGHTS_A_STEP = 1 << 17
"""One step costs less than to dequantize so many weights of a layer."""
_LARGE = 1 << 19
"""So many weights for the hidden state take longer to read as float32 than a step costs in Python."""
State = tuple[Tensor, ...]
"""The hidden state `[layers * directions, B, hidden]`; of an LSTM, the cell state too."""


def _has_fast_steps(input: Tensor) -> bool:
    """Whether a native kernel computes with the codes, and nobody writes down what each step does."""
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._get_tracing_state()
    return not recorded and input.dtype != torch.float64 and select(input.device.type).name != "reference"


class _Recurrent(QuantizedModule):
    """What the three kinds have in common: storage of any number of layers, and one forward."""

    weight_names: ClassVar[tuple[str, ...]] = ("weight_ih_l0", "weight_hh_l0")
    _flat_weights_names: list[str]
    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    dropout: float
    permute_hidden: Callable[[Any, Tensor | None], Any]
    check_forward_args: Callable[[Tensor, Any, Tensor | None], None]

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """Every matrix of every layer and direction; one scale for each row, which is a gate's unit."""
        names = cast(Any, module)._flat_weights_names
        return {name: ROWS for name in names if name.startswith("weight_")}

    # --- the second list of weights -----------------------------------------------------------

    @classmethod
    def adopt(
        cls,
        module: nn.Module,
        weights: Mapping[str, QuantizedWeight | HeldWeight],
        dtype: torch.dtype,
        layouts: Mapping[str, Layout] | None = None,
    ) -> None:
        """As every kind; drops the float weights that the float class keeps a second time."""
        for name in ("_flat_weights", "_flat_weight_refs"):
            module.__dict__.pop(name, None)
        super().adopt(module, weights, dtype, layouts)

    def restore(self, weights: Mapping[str, nn.Parameter]) -> None:
        """As every kind; the parameters get the order that the constructor gives them."""
        super().restore(weights)
        known = [name for name in self._flat_weights_names if name in self._parameters]
        for name in known:
            self._parameters[name] = self._parameters.pop(name)
        cast(Any, self)._init_flat_weights()

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, value: list[Any]) -> None:
        """Torch writes it after changing parameters; they are read from where they are instead."""

    def _init_flat_weights(self) -> None:
        """Nothing to do: see `_flat_weights`."""

    def _update_flat_weights(self) -> None:
        """Nothing to do: see `_flat_weights`."""

    def flatten_parameters(self) -> None:
        """Nothing to do: int8 weights are no input of cuDNN."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)

    # --- forward ------------------------------------------------------------------------------

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """As the float layer, in the dtype of the input: padded, unbatched or packed sequences."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode}: expected input with 2 or 3 dimensions, got {input.dim()}")
        is_batched = input.dim() == 3
        sequence = input if is_batched else input.unsqueeze(0 if self.batch_first else 1)
        if hx is None:
            state = self._zeros(sequence, sequence.shape[0 if self.batch_first else 1])
        else:
            state = self._as_state(hx)
            for each in state:
                if each.dim() != input.dim():
                    raise RuntimeError(
                        f"{self.mode}: expected hidden state with {input.dim()} dimensions, as the input, "
                        f"got {each.dim()}"
                    )
            state = state if is_batched else tuple(each.unsqueeze(1) for each in state)
        self.check_forward_args(sequence, self._as_hidden(state), None)
        output, state = self._run(sequence, state)
        if not is_batched:
            output = output.squeeze(0 if self.batch_first else 1)
            state = tuple(each.squeeze(1) for each in state)
        return output, self._as_hidden(state)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        input, batch_sizes, sorted_indices, unsorted_indices = packed
        if hx is None:
            hx = self._as_hidden(self._zeros(input, int(batch_sizes[0])))
        else:
            hx = self.permute_hidden(hx, sorted_indices)
        self.check_forward_args(input, hx, batch_sizes)
        weights = self._weights_in(input.dtype)
        output, *state = _OPERATORS[self.mode](input, batch_sizes, hx, weights, *self._settings())
        result = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return result, self.permute_hidden(self._as_hidden(tuple(state)), unsorted_indices)

    def _run(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        if self._pays_to_step(sequence):
            return self._run_steps(sequence, state)
        weights, hidden = self._weights_in(sequence.dtype), self._as_hidden(state)
        output, *state_after = _OPERATORS[self.mode](
            sequence, hidden, weights, *self._settings(), self.batch_first
        )
        return output, tuple(state_after)

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """As the float layer, but any float dtype will do."""
        if not input.is_floating_point():
            raise DtypeError(f"input: expected a float tensor, got {input.dtype}")
        dimensions = 3 if batch_sizes is None else 2
        if input.dim() != dimensions:
            raise RuntimeError(f"input must have {dimensions} dimensions, got {input.dim()}")
        expected = self.input_size
        if input.shape[-1] != expected:
            raise RuntimeError(f"input: expected a last dimension of {expected}, got {input.shape[-1]}")

    def _weights_in(self, dtype: torch.dtype) -> list[Tensor]:
        return [
            self.dequantized(name, dtype) if name in self.layouts else getattr(self, name).to(dtype)
            for name in self._flat_weights_names
        ]

    def _settings(self) -> tuple[Any, ...]:
        return self.bias, self.num_layers, self.dropout, self.training, self.bidirectional

    def _zeros(self, input: Tensor, batch: int) -> State:
        layers = self.num_layers * (2 if self.bidirectional else 1)
        hidden = input.new_zeros(layers, batch, self.proj_size or self.hidden_size)
        if self.mode != "LSTM":
            return (hidden,)
        return hidden, input.new_zeros(layers, batch, self.hidden_size)

    def _as_state(self, hx: Any) -> State:
        return tuple(hx) if self.mode == "LSTM" else (hx,)

    def _as_hidden(self, state: State) -> Any:
        return state if self.mode == "LSTM" else state[0]

    # --- step by step -------------------------------------------------------------------------

    def _pays_to_step(self, sequence: Tensor) -> bool:
        """Whether each step uses the codes: measured with `benchmarks/recurrent.py`."""
        if sequence.numel() == 0 or (self.dropout and self.training and self.num_layers > 1):
            return False
        steps, weights = sequence.shape[1 if self.batch_first else 0], self._hidden_weights()
        if steps <= max(1, 2 * weights // _WEIGHTS_A_STEP):
            return True
        return weights >= _LARGE and _has_fast_steps(sequence)

    def _hidden_weights(self) -> int:
        """The weights of one layer and direction that multiply the hidden state."""
        return _GATES[self.mode] * self.hidden_size * (self.proj_size or self.hidden_size)

    def _run_steps(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        values = sequence.transpose(0, 1) if self.batch_first else sequence
        after: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: 2 if self.bidirectional else 1]:
                before = tuple(each[len(after)] for each in state)
                output, stepped = run_steps(
                    self, self.mode, suffix, values, before, backwards=suffix.endswith("_reverse")
                )
                after.append(stepped)
                outputs.append(output)
            values = torch.cat(outputs, dim=-1) if self.bidirectional else outputs[0]
        output = values.transpose(0, 1) if self.batch_first else values
        return output, tuple(torch.stack(each) for each in zip(*after, strict=True))


class W8A16RNN(_Recurrent, nn.RNN):
    """`nn.RNN` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.RNN


class W8A16LSTM(_Recurrent, nn.LSTM):
    """`nn.LSTM` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.LSTM


class W8A16GRU(_Recurrent, nn.GRU):
    """`nn.GRU` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.GRU
