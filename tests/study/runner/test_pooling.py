from __future__ import annotations

import pytest
import torch

from w8a16.errors import CheckpointError
from w8a16.study.metrics import paired_interval
from w8a16.study.runner.pooling import pooled


def entry(losses, score, examples=4, held=100, note=None):
    row = {"dtype": "float32", "variant": "int8", "bytes": held, "score": score}
    row |= {"loss": {}, "loss_same_dtype": {}, "flip_rate": None} | ({"note": note} if note else {})
    cell = {
        "scenario": "toy",
        "modality": "tabular",
        "size": "small",
        "metric": "loss",
        "unit": "nats",
        "better": "lower",
        "parameters": 10,
        "examples": examples,
        "rows": [row],
        "tails": [],
        "peers": [],
    }
    values = {"loss": losses, "loss_same_dtype": losses} if losses else {}
    return {"cell": cell, "losses": {"rows": [values], "tails": [], "peers": []}}


def test_losses_are_averaged_over_seeds_and_then_resampled_over_examples():
    one, two = [0.0, 1.0, 2.0, 3.0], [2.0, 1.0, 4.0, 1.0]
    (row,) = pooled([entry(one, 1.5), entry(two, 2.5)])["rows"]
    mean = ((torch.tensor(one) + torch.tensor(two)) / 2).double()
    assert (row["loss"]["value"], row["loss"]["low"], row["loss"]["high"]) == paired_interval(mean)
    assert row["score"] == 2.0
    assert row["seeds"] == 2
    assert row["bytes"] == 100
    assert isinstance(row["bytes"], int)
    assert row["flip_rate"] is None


def test_noise_that_is_independent_between_seeds_averages_out():
    generator = torch.Generator().manual_seed(0)
    entries = [entry(torch.randn(200, generator=generator).tolist(), 0.0, 200) for _ in range(3)]
    width = [
        row["loss"]["high"] - row["loss"]["low"]
        for row in (pooled(e)["rows"][0] for e in (entries[:1], entries))
    ]
    assert 0.4 < width[1] / width[0] < 0.8  # one over the root of 3, within the noise of 200 examples


def test_a_seed_without_a_score_is_counted_out_and_noted():
    (row,) = pooled([entry([1.0] * 4, 1.0), entry(None, None, note="NaN or Inf on 1 of 4 examples")])["rows"]
    assert row["seeds"] == 1
    assert row["loss"]["value"] == 1.0
    assert row["note"] == "NaN or Inf on 1 of 4 examples"


def test_seeds_with_different_examples_cannot_be_paired():
    with pytest.raises(
        CheckpointError, match=r"toy small: expected the same number of examples, got \[4, 5\]"
    ):
        pooled([entry([1.0] * 4, 1.0), entry([1.0] * 5, 1.0, examples=5)])
