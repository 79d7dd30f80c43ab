import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, count_int8, mlp, quantized_linear, snapshot, storage_bytes


def test_quantizing_twice_is_a_no_op():
    model = w8a16.quantize(mlp())
    before, tensors = snapshot(model), [id(buffer) for buffer in model.buffers()]
    assert w8a16.quantize(model) is model
    assert_unchanged(model, before)
    assert [id(buffer) for buffer in model.buffers()] == tensors


def test_strict_is_satisfied():
    w8a16.quantize(w8a16.quantize(mlp()), strict=True)


def test_progress_is_not_called_for_it():
    seen = []
    w8a16.quantize(w8a16.quantize(mlp()), progress=lambda *event: seen.append(event))
    assert seen == []


def test_its_row_counts_the_float_bytes_it_stands_for():
    model = w8a16.quantize(mlp(16, 32).bfloat16())
    plan = w8a16.plan(model)
    (row,) = plan.rows
    assert (row.name, row.verdict, row.reason, row.kind, row.tier) == (
        "0.weight",
        "int8",
        "already_quantized",
        "linear",
        "compute",
    )
    assert (row.dtype, row.bytes_before, row.bytes_after) == ("bfloat16", 16 * 32 * 2, 16 * 32 + 32 * 4)
    assert plan.coverage == 1.0
    assert plan.bytes_after == storage_bytes(model)


def test_the_rest_of_a_partly_quantized_model_is_converted():
    model = w8a16.quantize(mlp(), include="0")
    codes = model[0].int8_weights
    assert [row.reason for row in w8a16.plan(model).rows] == ["converted", "already_quantized"]
    w8a16.quantize(model)
    assert count_int8(model) == 2
    assert model[0].int8_weights is codes


def test_a_layer_built_by_hand_counts_too():
    model = nn.Sequential(quantized_linear(), nn.Linear(32, 8))
    w8a16.quantize(model, strict=True)
    assert count_int8(model) == 2


def test_a_third_round_after_dequantize_gives_the_same_codes():
    model = w8a16.quantize(mlp(256, 64))
    codes = model[0].int8_weights.clone()
    for _ in range(3):
        w8a16.quantize(w8a16.dequantize(model))
        assert torch.equal(model[0].int8_weights, codes)
