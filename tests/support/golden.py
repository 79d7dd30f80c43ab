"""A small model of every layout, with numbers whose codes can be worked out by hand."""

from __future__ import annotations

import torch
from torch import nn

import w8a16


def golden_float_model() -> nn.Sequential:
    """Each row's largest magnitude is a simple multiple of 127."""
    parameters = nn.ParameterDict({"table": torch.zeros(2, 1, 4), "bias": torch.zeros(1, 2)})
    model = nn.Sequential(
        nn.Embedding(2, 4), nn.Linear(4, 2), parameters, nn.ConvTranspose1d(4, 2, 2, groups=2, bias=False)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[63.5, -1.0, 0.0, 32.0], [0.0, -0.0, 0.0, 0.0]]))
        model[1].weight.copy_(torch.tensor([[127.0, -64.0, 1.0, 0.0], [-254.0, 2.0, 127.0, 3.0]]))
        model[1].bias.copy_(torch.tensor([0.25, -8.0]))
        parameters["table"].copy_(torch.tensor([[[4.0, 0.0, 508.0, -4.0]], [[1.0, 2.0, 3.0, 127.0]]]))
        parameters["bias"].copy_(torch.tensor([[0.5, -0.0]]))
        # Input channels first, in two groups; the codes have output channels first: [2, 2, 2].
        model[3].weight.copy_(torch.tensor([[[127.0, 1.0]], [[2.0, 3.0]], [[254.0, -4.0]], [[6.0, 8.0]]]))
    return model


def golden_model() -> nn.Module:
    """The same in int8: each row's largest magnitude becomes 127."""
    return w8a16.quantize(golden_float_model())
