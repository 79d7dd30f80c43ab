"""Layouts: float weight -> codes -> float weight loses nothing, and scales are on the output channels."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a16.core import HALF_STEP_SLACK, error_in_half_steps
from w8a16.errors import ShapeError
from w8a16.layers import COLUMNS, ROWS, Layout, layout_of, quantize_with_layout
from w8a16.layers.layout import rows_of_last_dimension

SIZES = st.integers(1, 5)


@st.composite
def layouts_and_shapes(draw):
    """A layout and a float shape that fits it."""
    lead, swapped = draw(st.integers(1, 3)), draw(st.booleans())
    groups = draw(st.integers(1, 3)) if swapped and lead == 1 else 1
    shape = draw(st.lists(SIZES, min_size=lead + 1, max_size=lead + 3))
    shape[0] *= groups
    return Layout(lead, swapped, groups), tuple(shape)


def numbered(shape):
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(layouts_and_shapes())
def test_there_and_back(case):
    layout, shape = case
    weight = numbered(shape)
    assert layout.fits(shape)
    codes = layout.codes_of(weight)
    assert tuple(codes.shape) == layout.codes_shape(shape)
    assert layout.float_shape(layout.codes_shape(shape)) == shape
    assert torch.equal(layout.float_of(codes), weight)
    assert torch.equal(layout.float_of(codes.contiguous()), weight)
    assert layout.scales_shape(tuple(codes.shape)) == tuple(codes.shape[: layout.lead])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(layouts_and_shapes(), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_quantizing_keeps_every_element_within_half_a_step(case, dtype):
    layout, shape = case
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    codes, scales, underflow, _ = quantize_with_layout(weight, layout)
    assert (codes.dtype, scales.dtype, underflow) == (torch.int8, torch.float32, 0)
    assert tuple(codes.shape) == layout.codes_shape(shape)
    assert tuple(scales.shape) == layout.scales_shape(tuple(codes.shape))
    assert codes.is_contiguous()
    assert scales.is_contiguous()
    rows = layout.codes_of(weight).reshape(scales.numel(), -1)
    flat = codes.reshape(scales.numel(), -1)
    assert error_in_half_steps(rows, flat, scales.reshape(-1)).max() <= 1 + HALF_STEP_SLACK
    assert flat.abs().amax(dim=1).eq(127).all()  # each row has a scale of its own
    wide = scales.reshape(*scales.shape, *[1] * (codes.dim() - scales.dim()))
    back = layout.float_of(codes.double() * wide.double())
    assert back.shape == weight.shape
    assert ((back - weight.double()).abs() <= layout.float_of(wide.expand_as(codes)) / 2 * 1.0001).all()


def by_hand_columns(w):
    return w.t()


def by_hand_grouped(w):
    """Two groups of a transposed convolution `[C, N/2, k]`: each turned, one behind the other."""
    return torch.cat([half.transpose(0, 1) for half in w.chunk(2)])


BY_HAND = {
    "rows": (ROWS, (3, 5), lambda w: w),
    "rows of a convolution": (ROWS, (3, 2, 4), lambda w: w),
    "columns": (COLUMNS, (3, 5), by_hand_columns),
    "transposed convolution": (COLUMNS, (3, 2, 4), lambda w: w.transpose(0, 1)),
    "in two groups": (Layout(swapped=True, groups=2), (6, 5, 2), by_hand_grouped),
    "experts": (Layout(lead=2), (2, 3, 5), lambda w: w),
    "experts transposed": (Layout(lead=2, swapped=True), (2, 3, 5), lambda w: w.transpose(1, 2)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_the_layouts_in_use_by_hand(case):
    layout, shape, expected = BY_HAND[case]
    weight = numbered(shape)
    assert torch.equal(layout.codes_of(weight), expected(weight))


@pytest.mark.parametrize(
    "layout, shape",
    [
        (ROWS, (5,)),
        (ROWS, ()),
        (Layout(lead=2), (3, 4)),
        (Layout(lead=2, swapped=True), (3, 4)),
        (Layout(swapped=True, groups=2), (3, 4, 5)),
        (Layout(swapped=True, groups=4), (2, 4)),
    ],
    ids=str,
)
def test_what_does_not_fit(layout, shape):
    assert not layout.fits(shape)
    with pytest.raises(ShapeError):
        quantize_with_layout(torch.ones(shape), layout)


EMPTY = [
    (layout, shape)
    for layout in (ROWS, COLUMNS, Layout(lead=2), Layout(lead=2, swapped=True))
    for shape in ((0, 3), (3, 0), (0, 2, 3), (2, 0, 3), (2, 3, 0))
    if layout.fits(shape)
]


@pytest.mark.parametrize("layout, shape", EMPTY, ids=str)
def test_weights_without_elements(layout, shape):
    codes, scales, *_ = quantize_with_layout(torch.empty(shape), layout)
    assert tuple(codes.shape) == layout.codes_shape(shape)
    assert tuple(scales.shape) == layout.scales_shape(tuple(codes.shape))
    assert scales.eq(1).all()


@pytest.mark.parametrize("layout", [ROWS, COLUMNS, Layout(lead=2), Layout(lead=2, swapped=True)], ids=str)
def test_on_the_meta_device(layout):
    shape = (4, 6, 8)
    codes, scales, *_ = quantize_with_layout(torch.empty(shape, device="meta"), layout)
    assert (codes.device.type, scales.device.type) == ("meta", "meta")
    assert tuple(codes.shape) == layout.codes_shape(shape)
    assert tuple(scales.shape) == layout.scales_shape(tuple(codes.shape))


@pytest.mark.parametrize("layout", [Layout(lead=2), Layout(lead=2, swapped=True)], ids=str)
def test_a_row_that_underflows_is_counted_in_a_stack_too(layout):
    weight = torch.ones(3, 4, 4)
    weight[1] = 2.0**-130
    assert quantize_with_layout(weight, layout).underflow_rows == 4


def test_a_stack_is_quantized_as_its_parts_are():
    weight = torch.randn(3, 8, 16)
    codes, scales, *_ = quantize_with_layout(weight, Layout(lead=2, swapped=True))
    for expert in range(3):
        part = quantize_with_layout(weight[expert], COLUMNS)
        assert torch.equal(codes[expert], part.int8_weights)
        assert torch.equal(scales[expert], part.scales)


def test_parameters_of_unknown_use_have_a_scale_for_each_last_row():
    for shape in ((3, 5), (2, 3, 5), (2, 2, 3, 5)):
        layout = layout_of(torch.ones(shape))
        assert layout == rows_of_last_dimension(len(shape)) == Layout(lead=len(shape) - 1)
        assert layout.scales_shape(shape) == shape[:-1]
    assert layout_of(torch.ones(5)) is None
    assert layout_of(torch.ones(())) is None
    assert layout_of(None) is None


def test_layouts_are_values():
    assert Layout() == ROWS
    assert len({Layout(), ROWS, COLUMNS, Layout(swapped=True)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROWS.lead = 2
