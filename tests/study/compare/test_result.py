"""The records of a comparison: through JSON and back, and as text."""

import json
import math

import pytest

from w8a16.study.compare import Blame, Comparison, ModuleDrift, TensorDrift
from w8a16.study.metrics import Metric, WeightError


def a_comparison():
    own = TensorDrift(math.inf, 1.0, 0.0, 3.5, 64)
    drifted = TensorDrift(-math.inf, math.nan, 1.5, 0.0, 64)
    weight = WeightError("up", (8, 4), 41.5, 0.98, 2.9, 3.1, 7, 38.25, 3.9)
    return Comparison(
        model="Net",
        batches=2,
        samples=6,
        bytes_before=4000,
        bytes_after=1000,
        coverage=0.75,
        outputs=(("logits", own), ("hidden[1]", drifted)),
        task_name="language",
        task={
            "kl": Metric(1e-4, 0.5e-4, 2e-4, "nats/token", "lower"),
            "psnr": Metric(math.inf, unit="dB", better="higher"),
        },
        modules=(
            ModuleDrift("up", "linear", "compute", (8, 4), 0, weight, own, drifted),
            ModuleDrift("idle", "linear", "compute", (4, 8), None, None, None, None, "never called"),
        ),
        drift=1e-4,
        drift_unit="nats/token",
        blame=(Blame("up", 1e-5, 0.9, 96, ("head",)),),
        blame_untried=("idle",),
        kept_float=(("norm.weight", "a vector"),),
    )


def test_json_gives_back_the_same():
    """Also what JSON has no number for: an infinite SQNR, the cosine of zeros."""
    comparison = a_comparison()
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    assert '"inf"' in text
    assert '"nan"' in text
    again = Comparison.from_dict(json.loads(text))
    assert repr(again) == repr(comparison)  # `nan != nan`, so not `==`
    assert type(again.modules[0].weight.worst_row) is int


def test_the_text_says_what_matters():
    text = str(a_comparison())
    for expected in (
        "Net: 4.00 kB to 1.00 kB, 4.00 times smaller; 75.0% of the bytes of its matrices are int8",
        "6 samples in 2 batches",
        "logits     inf dB",
        "task: language  value",
        "kl              0.0001 nats/token (5e-05 to 0.0002)",
        "worst 1 of 2 int8 modules",
        "never called: idle",
        "to blame, of 0.0001 nats/token",
        "up = head  ",
        "90.0%",
        "not tried: 1 with less error",
        "norm.weight   a vector",
    ):
        assert expected in text, text


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        a_comparison().batches = 3
