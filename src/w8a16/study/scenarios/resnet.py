"""A residual network for small pictures: convolutions with batch normalisation (He et al., 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; `[n, C_in, h, w]` to `[n, C_out, h/stride, w/stride]`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions find to the input."""
        found = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(found + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, three stages of `depth` blocks, each wider on a smaller picture, and a linear head."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            outputs = width << stage
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(ResidualBlock(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """`[n, 3, h, w]` to logits `[n, classes]`."""
        x = self.blocks(F.relu(self.norm(self.stem(pictures))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
