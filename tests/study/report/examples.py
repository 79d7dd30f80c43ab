"""Comparisons to make reports of, with the figures that real ones have."""

from __future__ import annotations

import math

import torch

from w8a16.core import quantize_weight
from w8a16.study.compare import Blame, Comparison, ModuleDrift, TensorDrift
from w8a16.study.metrics import Metric, WeightError
from w8a16.study.report import Report, SpeedRow, WorstLayer, worst_layer

HOSTILE = 'a"><script>alert(1)</script>|`*_\n\x1b[31m\u202ereversed\u202c &amp; $x^2$'
"""A name that would break out of HTML, Markdown, a terminal, matplotlib's formulas and the reading order."""


def drift(sqnr_db: float, elements: int = 4096) -> TensorDrift:
    cosine = 1 / math.sqrt(1 + 10 ** (-sqnr_db / 10))
    return TensorDrift(sqnr_db, cosine, 4 * 10 ** (-sqnr_db / 20), 4.0, elements)


def weight_error(name: str, sqnr_db: float) -> WeightError:
    return WeightError(
        name=name,
        shape=(384, 384),
        sqnr_db=sqnr_db,
        largest_half_steps=0.99998,
        kurtosis=3.4,
        crest_factor=4.1,
        worst_row=17,
        worst_row_sqnr_db=sqnr_db - 4,
        worst_row_crest_factor=6.0,
    )


def module(place: int, name: str | None = None) -> ModuleDrift:
    wobble = math.sin(3.7 * place)
    path = name or f"encoder.layer.{place // 6}.attention.self.query_{place % 6}"
    return ModuleDrift(
        name=path,
        kind="linear",
        tier="compute",
        shape=(384, 384),
        depth=place,
        weight=weight_error(path, 40.5 + wobble),
        own=drift(38 + 3 * wobble - (9 if place == 7 else 0)),
        drifted=drift(36 - 4 * math.log2(1 + place) / 2 + wobble),
        note="",
    )


def comparison(layers: int = 36, **changes: object) -> Comparison:
    modules = tuple(module(place) for place in range(layers))
    fields: dict[str, object] = {
        "model": "BertModel",
        "batches": 8,
        "samples": 256,
        "bytes_before": 90_900_000,
        "bytes_after": 23_400_000,
        "coverage": 0.9993,
        "outputs": (("last_hidden_state", drift(33.0)), ("pooler_output", drift(36.5))),
        "task_name": "language",
        "task": {
            "kl": Metric(0.00042, 0.00036, 0.00049, "nats/token", "lower"),
            "top1_agreement": Metric(0.9912, 0.9881, 0.9940, "", "higher"),
            "top5_agreement": Metric(0.9934, 0.9921, 0.9946, "", "higher"),
            "perplexity_difference": Metric(0.013, -0.011, 0.037, "", "lower"),
        },
        "modules": modules,
        "drift": 0.00042,
        "drift_unit": "nats/token",
        "blame": tuple(
            Blame(m.name, 0.00042 * (1 - share), share, 442_368)
            for m, share in zip(modules, (0.41, 0.12, 0.05, 0.01, -0.02), strict=False)
        ),
        "blame_untried": (),
        "kept_float": (("embeddings.LayerNorm.weight", "a vector"),),
    }
    return Comparison(**(fields | changes))  # type: ignore[arg-type]


def heavy_tailed() -> WorstLayer:
    weight = torch.randn(384, 384, generator=torch.Generator().manual_seed(0)) * 0.04
    weight.view(-1)[::5000] *= 12
    return worst_layer("encoder.layer.1.attention.self.query_1", weight, quantize_weight(weight).int8_weights)


def speed() -> tuple[SpeedRow, ...]:
    times = ((1, 0.0754e-3, 0.0268e-3), (32, 0.141e-3, 0.0788e-3), (512, 1.02e-3, 1.11e-3))
    return tuple(SpeedRow("384x384", 24, batch, "float32", *pair) for batch, *pair in times)


def full(layers: int = 36) -> Report:
    return Report(comparison(layers), heavy_tailed(), speed())
