"""The shapes of a model, and the layers that are timed. No time is asserted."""

import pytest
import torch
from torch import nn

import w8a16
from w8a16.errors import ResourceError
from w8a16.study import LinearShape, Measurement, Timing, linear_shapes, measure_linear, speed
from w8a16.study.speed import check_memory, random_weight


class Narrow(nn.Module):
    """A linear layer that would not be smaller as int8: it stays float."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(4, 8)
        self.narrow = nn.Linear(1, 8)


class Odd(nn.Linear):
    """A linear layer with a name of its own."""


def test_shapes_with_names():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4, bias=False), nn.Linear(4, 8), nn.Conv1d(4, 8, 1))
    found = linear_shapes(model)
    assert found.shapes == (LinearShape(8, 4, True, ("0", "2")), LinearShape(4, 8, False, ("1",)))
    assert found.kept_float == ()


def test_the_largest_part_of_the_model_comes_first():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(10, 10), *(nn.Linear(6, 6) for _ in range(4)))
    assert [str(shape) for shape in linear_shapes(model).shapes] == ["6x6", "10x10", "4x4"]


def test_bias_makes_another_shape():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    assert [(str(s), s.bias) for s in linear_shapes(model).shapes] == [("4x4", True), ("4x4", False)]


def test_layers_that_stay_float():
    found = linear_shapes(Narrow())
    assert [shape.names for shape in found.shapes] == [("wide",)]
    assert found.kept_float == ("narrow",)


def test_on_the_meta_device():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(100_000, 100_000), nn.ReLU())
    assert [str(shape) for shape in linear_shapes(model).shapes] == ["100000x100000"]


def test_shared_and_tied_layers():
    layer, tied = nn.Linear(4, 8), nn.Linear(4, 8)
    tied.weight = layer.weight
    assert linear_shapes(nn.Sequential(layer, layer, tied)).shapes[0].names == ("0", "2")


def test_the_root_and_quantized_layers():
    assert linear_shapes(nn.Linear(4, 8)).shapes == (LinearShape(8, 4, True, ("",)),)
    assert linear_shapes(w8a16.quantize(nn.Sequential(nn.Linear(4, 8)))).shapes[0].names == ("0",)


def test_without_linear_layers():
    assert linear_shapes(nn.Sequential(nn.Embedding(4, 8), nn.Conv1d(4, 8, 1), nn.ReLU())).shapes == ()


def test_subclasses_of_linear_layers_are_linear_layers():
    found = linear_shapes(nn.Sequential(Odd(4, 8), nn.Linear(4, 8)))
    assert [shape.names for shape in found.shapes] == [("0", "1")]


def test_a_weight_that_is_shared_with_a_table_is_timed_too():
    model = nn.ModuleDict({"table": nn.Embedding(8, 4), "head": nn.Linear(4, 8)})
    model["head"].weight = model["table"].weight
    assert linear_shapes(model).shapes == (LinearShape(8, 4, True, ("head",)),)


def test_a_shape_given_by_hand():
    shape = LinearShape(8, 4)
    assert (str(shape), shape.count, shape.bias) == ("8x4", 1, False)
    assert LinearShape(8, 4, True, ("a", "b")).count == 2


def test_what_a_measurement_counts():
    shape = LinearShape(out_features=100, in_features=10, bias=True)
    m = Measurement(shape, 3, torch.bfloat16, Timing((4.0,)), Timing((1.0, 2.0, 9.0)))
    assert m.speedup == 2.0
    assert m.operations == 2 * 3 * 100 * 10
    assert m.int8_bytes == 100 * 10 + 4 * 100 + 2 * 100 + 2 * 3 * (100 + 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_measure(dtype, bias, monkeypatch):
    monkeypatch.setattr(speed, "copies_beyond_cache", lambda weight_bytes: 2)
    found = list(measure_linear(LinearShape(6, 5, bias), dtype, [1, 4], seconds=0.001))
    assert [m.batch for m in found] == [1, 4]
    assert all(m.dtype == dtype for m in found)
    for m in found:
        for timing in (m.float_time, m.int8_time):
            assert len(timing.seconds) >= 3
            assert 0 < timing.best <= timing.median


def test_both_layers_compute_the_same():
    """What is timed as int8 is the int8 form of what is timed as float, and every copy of it."""
    torch.manual_seed(0)
    floats, int8s = speed._layers(LinearShape(1 << 11, 1 << 12, True), torch.float32)
    x = torch.randn(2, 1 << 12)
    assert len(floats) >= 1
    assert len(int8s) > 1
    assert len({layer.int8_weights.data_ptr() for layer in int8s}) == len(int8s)
    with torch.no_grad():
        expected = floats[0](x)
        for layer in (*floats, *int8s):
            assert float((layer(x) - expected).norm() / expected.norm()) < 0.02


def test_random_weight():
    weight = random_weight(3, 5, torch.bfloat16)
    assert (weight.shape, weight.dtype) == ((3, 5), torch.bfloat16)
    assert random_weight(1 << 11, 1 << 10, torch.float32).std() == pytest.approx(0.02, rel=0.05)


def test_too_large(monkeypatch):
    monkeypatch.setattr(speed, "available_memory", lambda: 1_000_000_000)
    monkeypatch.setattr(speed, "copies_beyond_cache", lambda weight_bytes: 1)
    check_memory(LinearShape(10_000, 10_000), torch.float32, [1])
    text = "a layer of 20000x10000: needs 1.00 GB to be timed at batch 1, 1.00 GB are available"
    with pytest.raises(ResourceError, match=text):
        check_memory(LinearShape(20_000, 10_000), torch.float32, [1])
    with pytest.raises(ResourceError, match="at batch 9000000"):
        next(measure_linear(LinearShape(10, 10), torch.float32, [1, 9_000_000], seconds=1))
    monkeypatch.setattr(speed, "available_memory", lambda: None)
    check_memory(LinearShape(20_000, 10_000), torch.float32, [1])
