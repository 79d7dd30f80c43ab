"""A transformer over the columns of a table (Gorishniy et al., 2021): the course of diabetes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.study.scenarios.pictures import sklearn_datasets
from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.training import Schedule, fit, seeded

FEATURES = 10
_HELD_OUT = 150


@dataclass(frozen=True)
class Table:
    """Features `[n, 10]` and targets `[n]`, both with mean 0 and deviation 1 over the training rows."""

    features: Tensor
    targets: Tensor


@cache
def diabetes(held_out: bool) -> Table:
    """292 rows for training or the 150 held-out ones, drawn at random once and for all.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    data = sklearn_datasets("the table").load_diabetes(scaled=False)
    features, targets = torch.tensor(data.data).float(), torch.tensor(data.target).float()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(442))
    training, rest = order[_HELD_OUT:], order[:_HELD_OUT]
    rows = rest if held_out else training
    columns = (features - features[training].mean(0)) / features[training].std(0)
    return Table(columns[rows], ((targets - targets[training].mean()) / targets[training].std())[rows])


class TableTransformer(nn.Module):
    """A token for each column, an encoder over them, and a regression from the token in front."""

    def __init__(self, columns: int, width: int, layers: int) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.randn(columns, width) * width**-0.5)
        self.offsets = nn.Parameter(torch.randn(columns + 1, width) * width**-0.5)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.2, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`[n, columns]` to predictions `[n]`."""
        tokens = torch.cat([features.new_zeros(len(features), 1, 1), features[:, :, None]], 1)
        first = self.scales.new_ones(1, self.scales.shape[1])
        x = tokens * torch.cat([first, self.scales]) + self.offsets
        predictions: Tensor = self.head(self.encoder(x)[:, 0]).squeeze(-1)
        return predictions


class TabularDiabetes:
    """Ten measurements of a patient to the course of the disease a year later."""

    name = "tabular-diabetes"
    title = "Table transformer"
    modality = "tabular"
    task = "regression"
    source = "scikit-learn's diabetes table (442 patients, ten measurements)"
    sizes = SIZES
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=300, learning_rate=1e-3, weight_decay=0.1),
            "medium": Schedule(steps=300, learning_rate=7e-4, weight_decay=0.1),
            "large": Schedule(steps=300, learning_rate=5e-4, weight_decay=0.1),
        }
    )

    def build(self, size: str) -> nn.Module:
        """Two layers of width 32, 64 or 128."""
        return TableTransformer(FEATURES, {"small": 32, "medium": 64, "large": 128}[size], 2).eval()

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Minimise the squared error, with a little noise on the features."""
        with seeded(seed):
            model = self.build(size)
        table = diabetes(False)

        def loss(generator: torch.Generator) -> Tensor:
            picked = torch.randint(len(table.targets), (64,), generator=generator)
            noise = 0.2 * torch.randn(64, FEATURES, generator=generator)
            errors: Tensor = model(table.features[picked] + noise) - table.targets[picked]
            return errors.square().mean()

        return fit(model, loss, self.schedules[size].shortened(quick), seed, progress)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """The share of the variance that is explained: one minus each row's squared error over the mean one.

        The mean over the 150 rows is R2, with the variance taken around the mean of the held-out rows.
        """
        table = diabetes(True)
        errors = (model(table.features.to(dtype)).double() - table.targets.double()).square()
        variance = table.targets.double().var(correction=0)
        return Scores("R2", "", "higher", 1 - errors / variance)

    def baseline(self, seed: int) -> float:
        """The mean of the held-out rows explains nothing."""
        return 0.0

    def batches(self, count: int, seed: int) -> list[Any]:
        """Batches of 50 held-out rows; from the first again after three."""
        parts = diabetes(True).features.split(50)
        return [parts[i % len(parts)] for i in range(count)]
