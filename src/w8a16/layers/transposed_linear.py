"""The linear layer of GPT-2 and its relatives, which stores its weight as `[in, out]`.

transformers calls it `Conv1D`. Its codes are turned once to `[out, in]`, with the scales on the output
channels, and run through the same op as every linear layer.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from w8a16.kernels import apply_linear
from w8a16.layers.base import QuantizedModule
from w8a16.layers.layout import COLUMNS, Layout
from w8a16.layers.refined import refined_linear


class W8A16TransposedLinear(QuantizedModule):
    """A linear layer whose float weight is `[in_features, out_features]`; codes `[out, in]`."""

    float_type: ClassVar[type[nn.Module]] = nn.Module  # the table names the class; it is not imported here
    bias: Tensor | None
    int8_weights: Tensor
    scales: Tensor

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """Output channels are the columns of the float weight."""
        return {"weight": COLUMNS}

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]`, in the dtype of the input."""
        layout = self.layouts["weight"]
        if layout.group or layout.outliers:
            return refined_linear(self, x)
        return apply_linear(x, self.int8_weights, self.scales, self.bias)
