"""Simulated quantizers: against the library itself, against formulas, and on the sign flip."""

import copy

import pytest
import torch
from torch import nn

import w8a16
from w8a16.errors import ModuleError, UsageError, WeightValueError
from w8a16.study.variants import VARIANTS, apply_variant, flip_rate, float_rows, quantizers, variant_bytes

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def every_kind():
    torch.manual_seed(0)
    tied = nn.Embedding(50, 32)
    head = nn.Linear(32, 50, bias=False)
    head.weight = tied.weight
    return nn.ModuleList(
        [
            nn.Linear(200, 30),
            nn.Conv2d(4, 8, 3),
            nn.ConvTranspose2d(8, 6, 3, groups=2),
            nn.LSTM(16, 24),
            nn.utils.parametrizations.weight_norm(nn.Linear(40, 24)),
            nn.MultiheadAttention(16, 2),
            tied,
            head,
        ]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_per_channel_is_the_library_bit_for_bit(dtype):
    model = every_kind().to(dtype)
    expected = dict(w8a16.dequantize(w8a16.quantize(copy.deepcopy(model))).named_parameters())
    simulated = dict(apply_variant(copy.deepcopy(model), "per_channel").named_parameters())
    assert simulated.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(expected[name], simulated[name])] == []
    assert not torch.equal(simulated["0.weight"], model[0].weight)


def test_a_float_model_stays_one_and_ties_stay_ties():
    model = every_kind()
    types = [type(module) for module in model]
    result = apply_variant(model, "bits_4")
    assert result is model
    assert model[7].weight is model[6].weight
    assert [type(module) for module in model][:4] == types[:4]
    assert sum(weight.name in ("6.weight", "7.weight") for weight in float_rows(model)) == 1


def relative_error(rows, simulate):
    return float((simulate(rows) - rows).norm() / rows.norm())


def test_errors_are_those_of_the_steps():
    """A step s gives an error of s / sqrt(12) an element; ratios of steps are ratios of errors."""
    torch.manual_seed(0)
    rows = torch.randn(64, 1024)
    ours = relative_error(rows, quantizers.per_channel)
    step = rows.abs().amax(1, keepdim=True) / 127
    rms = (step.square().mean() / 12).sqrt() * rows.numel() ** 0.5 / rows.norm()
    assert ours == pytest.approx(float(rms), rel=0.01)
    assert relative_error(rows, quantizers.with_bits(8)) == ours
    assert relative_error(rows, quantizers.with_bits(6)) == pytest.approx(ours * 127 / 31, rel=0.02)
    assert relative_error(rows, quantizers.with_bits(4)) == pytest.approx(ours * 127 / 7, rel=0.02)
    assert relative_error(rows, quantizers.range_128) == pytest.approx(ours * 127 / 127.5, rel=0.002)
    assert relative_error(rows, quantizers.per_tensor) > ours * 1.05
    for finer in (quantizers.in_groups(128), quantizers.in_groups(32), quantizers.with_outliers(4)):
        assert relative_error(rows, finer) < ours * 0.95
    for dtype in (torch.bfloat16, torch.float16):
        assert relative_error(rows, quantizers.with_scales_in(dtype)) == pytest.approx(ours, rel=0.01)


def test_clipping_is_never_worse_and_pays_at_four_bits_more_than_at_eight():
    torch.manual_seed(0)
    rows = torch.distributions.StudentT(4.0).sample((64, 512))
    plain = (quantizers.per_channel(rows) - rows).square().sum(1)
    clipped = (quantizers.clipped(rows) - rows).square().sum(1)
    assert bool((clipped <= plain).all())
    assert bool((clipped < plain).any())


def test_groups_cut_along_the_row_and_the_last_may_be_shorter():
    rows = torch.tensor([[127.0, 1.4, 12.7, 0.14, 0.2]])
    assert quantizers.in_groups(2)(rows).tolist() == [
        pytest.approx([127.0, 1.0, 12.7, 0.1, 0.2]),
    ]
    assert torch.equal(quantizers.in_groups(8)(rows), quantizers.per_channel(rows))


def test_outliers_stay_and_the_rest_gets_its_own_scale():
    rows = torch.tensor([[1000.0, 1.27, -900.0, 0.015]])
    assert quantizers.with_outliers(2)(rows).tolist() == [pytest.approx([1000.0, 1.27, -900.0, 0.02])]
    assert torch.equal(quantizers.with_outliers(4)(rows), rows)


def test_the_128th_code_is_used_on_the_negative_side_only():
    rows = torch.tensor([[-127.5, 127.5, 3.2]])
    assert quantizers.range_128(rows).tolist() == [[-128.0, 127.0, 3.0]]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_rows_of_zeros_and_tiny_rows_stay_finite(name, dtype):
    rows = torch.zeros(3, 40, dtype=dtype)
    rows[1] = torch.linspace(-1, 1, 40)
    rows[2, 5] = 1e-7
    simulated = VARIANTS[name].simulate(rows)
    assert simulated.dtype == dtype
    assert simulated.shape == rows.shape
    assert bool(torch.isfinite(simulated).all())
    assert not simulated[0].any()
    assert simulated[1].any()


def test_textbook_flips_the_largest_weight_in_bfloat16_only():
    torch.manual_seed(0)
    layer = nn.Linear(2048, 200)
    assert flip_rate(layer, "textbook") == 0
    half = copy.deepcopy(layer).bfloat16()
    flipped = apply_variant(copy.deepcopy(half), "textbook")
    rate = flip_rate(half, flipped)
    assert rate == flip_rate(half, "textbook")
    assert rate > 0.9
    assert flip_rate(half, "per_channel") == 0
    assert relative_error(half.weight.detach().float(), lambda _: flipped.weight.detach().float()) > 0.1


def test_only_a_positive_largest_weight_can_flip():
    """127.5 rounds to 128, which wraps; -127.5 rounds to -128, which is an int8."""
    rows = torch.zeros(2, 64, dtype=torch.bfloat16)
    found = [v for v in torch.arange(1.0, 2.0, 2**-7).tolist() if _flips(v)]
    assert found
    rows[0, 3], rows[1, 3] = found[0], -found[0]
    layer = nn.Linear(64, 2).bfloat16()
    with torch.no_grad():
        layer.weight.copy_(rows)
    assert flip_rate(layer, "textbook") == 0.5


def _flips(value):
    row = torch.tensor([[value] + [0.0] * 7], dtype=torch.bfloat16)
    return float(quantizers.textbook(row)[0, 0]) < 0


def test_textbook_in_float32_is_the_law():
    torch.manual_seed(0)
    rows = torch.randn(50, 300)
    assert quantizers.textbook(rows) == pytest.approx(quantizers.per_channel(rows), rel=1e-6)


def test_flip_rate_changes_nothing():
    model = every_kind()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flip_rate(model, "bits_4")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_stored_bytes():
    model = nn.Sequential(nn.Linear(200, 30), nn.Linear(30, 10))
    plan = w8a16.plan(model)
    assert variant_bytes(model, "per_channel") == sum(row.bytes_after for row in plan.rows)
    assert variant_bytes(model, "groups_128") == 30 * (200 + 2 * 4) + 10 * (30 + 4)
    assert variant_bytes(model, "outliers_4") == 30 * (200 + 4 + 32) + 10 * (30 + 4 + 32)
    assert variant_bytes(model, "per_tensor") == 6300 + 8
    assert variant_bytes(model, "bits_6") == 30 * 150 + 30 * 4 + 225 + 40


def test_what_cannot_be_done_is_refused():
    with pytest.raises(UsageError, match=r"expected one of per_channel, textbook, .*; got 'per_chanel'"):
        apply_variant(nn.Linear(8, 8), "per_chanel")
    with pytest.raises(ModuleError, match="no weight of this model would become int8"):
        apply_variant(nn.LayerNorm(8), "textbook")
    broken = nn.Linear(64, 8)
    with torch.no_grad():
        broken.weight[3, 4] = torch.nan
    with pytest.raises(WeightValueError, match=r"the first at \[3, 4\]"):
        apply_variant(broken, "textbook")
    with pytest.raises(ModuleError, match=r"0.weight: expected a weight with rows \[8, 64\] in both"):
        flip_rate(nn.Sequential(nn.Linear(64, 8)), nn.Sequential(nn.Linear(32, 16)))
