"""Time-series models of transformers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import BATCH

PAST, FUTURE, LAGS = 16, 8, [1, 2, 3]

FORECAST = {
    "prediction_length": FUTURE,
    "context_length": PAST,
    "lags_sequence": LAGS,
    "num_time_features": 2,
    "num_static_categorical_features": 1,
    "cardinality": [5],
    "embedding_dimension": [8],
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
}
PATCHES = {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 64}

series = partial(transformer, family="time-series")


def history_and_future() -> dict[str, Tensor]:
    """Values and features of the past and of the future."""
    steps = PAST + max(LAGS)
    return {
        "past_values": torch.randn(BATCH, steps),
        "past_time_features": torch.randn(BATCH, steps, 2),
        "past_observed_mask": torch.ones(BATCH, steps),
        "static_categorical_features": torch.randint(0, 5, (BATCH, 1)),
        "future_values": torch.randn(BATCH, FUTURE),
        "future_time_features": torch.randn(BATCH, FUTURE, 2),
    }


def channels() -> dict[str, Tensor]:
    """The past of three channels."""
    return {"past_values": torch.randn(BATCH, 32, 3)}


ENTRIES: tuple[Entry, ...] = (
    series(
        "time_series_transformer",
        published={"prediction_length": 24},
        class_name="TimeSeriesTransformerForPrediction",
        inputs=history_and_future,
        **FORECAST,
    ),
    series(
        "informer",
        published={"prediction_length": 24},
        class_name="InformerForPrediction",
        inputs=history_and_future,
        **FORECAST,
        note="samples the keys it attends to",
    ),
    series(
        "autoformer",
        published={"prediction_length": 24},
        class_name="AutoformerForPrediction",
        inputs=history_and_future,
        **FORECAST,
        label_length=8,
        moving_average=5,
    ),
    series(
        "patchtst",
        class_name="PatchTSTForPrediction",
        inputs=channels,
        **PATCHES,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=256,
        prediction_length=8,
        head_dropout=0.0,
    ),
    series(
        "patchtsmixer",
        class_name="PatchTSMixerForPrediction",
        published={
            "d_model": 192,
            "num_layers": 8,
            "context_length": 512,
            "patch_length": 16,
            "patch_stride": 16,
        },
        inputs=channels,
        **PATCHES,
        num_layers=2,
        expansion_factor=2,
        prediction_length=8,
    ),
    series(
        "timesfm",
        class_name="TimesFmModelForPrediction",
        published=True,
        inputs=lambda: {
            "past_values": [torch.randn(32), torch.randn(24)],
            "freq": torch.zeros(BATCH, 1, dtype=torch.int64),
        },
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=16,
        intermediate_size=256,
        patch_length=8,
        context_length=32,
        horizon_length=8,
    ),
    series(
        "timesfm2_5",
        class_name="TimesFm2_5ModelForPrediction",
        inputs=lambda: {"past_values": [torch.randn(32), torch.randn(24)]},
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        intermediate_size=256,
        patch_length=8,
        context_length=32,
        horizon_length=8,
        output_quantile_len=16,
    ),
)
