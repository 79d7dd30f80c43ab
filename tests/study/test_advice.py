"""Conclusions from made-up times."""

import pytest
import torch

from w8a16.study import LinearShape, Measurement, Timing, advice, crossover, exclude_patterns, totals
from w8a16.study.advice import is_slower

UP = LinearShape(1024, 256, names=("layer.0.up", "layer.1.up"))
DOWN = LinearShape(256, 1024, names=("layer.0.down", "layer.1.down"))
NAMES = (*UP.names, *DOWN.names, "head")


def measured(shape, speedups, dtype=torch.float32):
    """One measurement a batch size, with int8 at 1 ms: `{batch: speedup}`."""
    return [
        Measurement(shape, batch, dtype, Timing((ratio * 1e-3,)), Timing((1e-3,)))
        for batch, ratio in speedups.items()
    ]


@pytest.mark.parametrize(
    "speedups, batch",
    [
        ({1: 3.0, 8: 2.0}, None),
        ({1: 3.0, 8: 0.9}, 8),
        ({1: 3.0, 8: 0.9, 64: 0.8}, 8),
        ({64: 0.8, 8: 0.9, 1: 3.0}, 8),
        ({1: 0.5, 8: 0.9}, 1),
        ({1: 0.5, 8: 2.0}, None),
        ({1: 0.5, 8: 2.0, 64: 0.9}, 64),
        ({1: 2.0, 8: 0.98}, None),  # noise
        ({}, None),
    ],
)
def test_crossover(speedups, batch):
    assert crossover(speedups.items()) == batch


def test_noise_is_not_slower():
    assert not is_slower(0.96)
    assert is_slower(0.94)


def test_totals_count_the_layers():
    found = totals([*measured(UP, {8: 1.0, 1: 4.0}), *measured(LinearShape(3, 3), {1: 2.0, 8: 0.5})])
    assert [total.batch for total in found] == [1, 8]
    assert found[0].float_seconds == pytest.approx(2 * 4e-3 + 2e-3)
    assert found[0].int8_seconds == pytest.approx(3e-3)
    assert [total.speedup for total in found] == pytest.approx([10 / 3, 2.5 / 3])


def test_totals_use_medians():
    spread = Measurement(
        LinearShape(3, 3), 1, torch.float32, Timing((1.0, 2.0, 9.0)), Timing((1.0, 5.0, 6.0))
    )
    assert totals([spread])[0].float_seconds == 2.0
    assert totals([spread])[0].int8_seconds == 5.0


def test_faster_everywhere():
    assert advice([*measured(UP, {1: 3.54, 8: 1.3}), *measured(DOWN, {1: 2.0, 8: 1.2})], NAMES) == [
        "int8 pays for every layer at every batch size measured: 1.2x to 3.5x as fast as float32."
    ]


def test_slower_everywhere():
    assert advice(measured(UP, {1: 0.5, 8: 0.75}, torch.bfloat16), NAMES) == [
        "int8 is slower than bfloat16 for every layer at every batch size measured (0.50x to 0.75x as "
        "fast): here it saves memory, not time."
    ]


def test_one_shape_never_pays():
    found = advice([*measured(UP, {1: 4.0, 8: 2.0}), *measured(DOWN, {1: 0.8, 8: 0.8})], NAMES)
    assert found == [
        "All layers together, int8 is 2.4x as fast as float32 at batch 1 and 1.4x at batch 8: it pays at "
        "every batch size measured.",
        "int8 is slower than float32 for 256x1024 at every batch size; exclude=['layer.*.down'] keeps it "
        "float.",
    ]


def test_large_batches_do_not_pay():
    found = advice([*measured(UP, {1: 4.0, 64: 0.5}), *measured(DOWN, {1: 2.0, 64: 0.6})], NAMES)
    assert found == [
        "All layers together, int8 is 3.0x as fast as float32 at batch 1 and 0.55x at batch 64: it is slower "
        "from batch 64 on.",
        "int8 is slower than float32 for 1024x256 and 256x1024 from batch 64 on; for such batches "
        "exclude=['layer.*.up', 'layer.*.down'] keeps them float.",
    ]


def test_several_reasons():
    """What never pays is named for exclusion; what depends on the batch size is only told."""
    found = advice([*measured(UP, {1: 4.0, 64: 0.5}), *measured(DOWN, {1: 0.5, 64: 0.6})], NAMES)[1]
    assert found == (
        "int8 is slower than float32 for 1024x256 from batch 64 on, for 256x1024 at every batch size; "
        "exclude=['layer.*.down'] keeps 256x1024 float."
    )


def test_small_batches_do_not_pay():
    first, second = advice(measured(LinearShape(8, 8), {1: 0.5, 2: 0.9, 8: 2.0}))
    assert first.endswith("at batch 1 and 2.0x at batch 8: it is slower at batch 1 and 2.")
    assert second == (
        "int8 is slower than float32 for 8x8 at batch 1 and 2; for such batches exclude= with the names of "
        "the layers keeps it float."
    )


def test_one_batch_size():
    first, second = advice([*measured(UP, {4: 2.0}), *measured(DOWN, {4: 0.5})], NAMES)
    assert first == "All layers together, int8 is 1.2x as fast as float32 at batch 4."
    assert "for 256x1024 at every batch size; exclude=['layer.*.down']" in second


def test_nothing_measured():
    assert advice([]) == []


def test_patterns():
    names = ["layer.0.out.dense", "layer.1.out.dense", "layer.0.attention.out.dense", "head"]
    assert exclude_patterns(["head"], names) == ("head",)
    assert exclude_patterns(["layer.0.attention.out.dense"], names) == ("layer.*.attention.out.dense",)
    # The glob's star also crosses dots, so it would hit the attention's layer.
    assert exclude_patterns(names[:2], names) == ("layer.0.out.dense", "layer.1.out.dense")
    assert exclude_patterns(["layer.0.out.dense"], names[:2]) == ("layer.0.out.dense",)
    assert exclude_patterns([], names) == ()


def test_patterns_mean_the_same_to_quantize():
    """A pattern that matches a module spares all that is inside it."""
    assert exclude_patterns(["block.0"], ["block.0", "block.1.inner"]) == ("block.0",)
    assert exclude_patterns(["block.0", "block.1"], ["block.0", "block.1", "top"]) == ("block.*",)
