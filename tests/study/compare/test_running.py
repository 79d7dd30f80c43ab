"""Random numbers inside a comparison, and the sums that every drift is made of."""

import random

import pytest
import torch

from w8a16.study.compare.drift import DriftSum
from w8a16.study.compare.running import same_randomness


def test_the_same_random_numbers_at_every_call_and_the_state_as_it_was():
    torch.manual_seed(7)
    random.seed(7)
    expected = torch.rand(3).tolist(), random.random()
    torch.manual_seed(7)
    random.seed(7)
    drawn = []
    for _ in range(2):
        with same_randomness(5):
            drawn.append((torch.rand(3).tolist(), random.random()))
    assert (torch.rand(3).tolist(), random.random()) == expected
    torch.manual_seed(5)
    assert drawn == [(torch.rand(3).tolist(), random.Random(5).random())] * 2


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_is_found_on_either_side_of_zero(sign):
    total = DriftSum()
    total.add(sign * torch.tensor([1.0, 9.0, -2.0]), sign * torch.tensor([1.5, 8.75, -2.25]))
    found = total.result()
    assert (found.largest_reference, found.largest_difference) == (9.0, 0.5)


@pytest.mark.parametrize("decibels", [20, 100, 140])
def test_small_noise_is_not_lost_in_the_sums(decibels):
    """The noise is exact in float64; summed up in float32, 140 dB would drown in rounding."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(300_001, generator=generator, dtype=torch.float64)
    noise = torch.randn(300_001, generator=generator, dtype=torch.float64) * 10 ** (-decibels / 20)
    total = DriftSum()
    total.add(reference, reference + noise)
    expected = 10 * torch.log10(reference.square().sum() / noise.square().sum())
    assert total.result().sqnr_db == pytest.approx(float(expected), abs=1e-6)
