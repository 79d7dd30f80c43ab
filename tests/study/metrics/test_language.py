"""Language metrics, against scipy and torch's cross-entropy."""

import math

import pytest
import torch
from scipy import special, stats
from torch.nn import functional

from w8a16.errors import ShapeError, UsageError
from w8a16.study.metrics import kl_divergence, language, negative_log_likelihood, top_k_agreement


def logits(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


A, B = logits(0, 4, 6, 11), logits(1, 4, 6, 11)


@pytest.mark.parametrize("block", [1 << 21, 23])
def test_kl_is_that_of_scipy(block, monkeypatch):
    monkeypatch.setattr(language, "_BLOCK_ELEMENTS", block)
    p, q = (special.softmax(x.double().numpy(), axis=-1) for x in (A, B))
    result = kl_divergence(A, B)
    assert result.shape == (4, 6)
    assert result.flatten().tolist() == pytest.approx(stats.entropy(p, q, axis=-1).flatten().tolist())


def test_kl_of_equals_is_zero_and_a_shift_changes_nothing():
    assert kl_divergence(A, A).abs().max() == 0
    assert kl_divergence(A, A + 100).max() < 1e-10
    assert (kl_divergence(A, B) > 0).all()


def test_kl_of_small_noise_is_half_its_variance():
    """Second order: `KL = var_p(noise) / 2`; in float32 it would drown in rounding."""
    noise = 1e-6 * logits(2, 4, 6, 11).double()
    p = A.double().softmax(-1)
    variance = (p * noise.square()).sum(-1) - (p * noise).sum(-1).square()
    assert kl_divergence(A.double(), A.double() + noise).flatten().tolist() == pytest.approx(
        (variance / 2).flatten().tolist(), rel=1e-3
    )


def test_forbidden_tokens_count_nothing():
    a, b = A.clone(), B.clone()
    a[..., 3] = b[..., 3] = -math.inf
    kept = [v for v in range(11) if v != 3]
    assert torch.allclose(kl_divergence(a, b), kl_divergence(A[..., kept], B[..., kept]))
    assert kl_divergence(torch.zeros(2), torch.tensor([0.0, -math.inf])) == math.inf


def test_agreement():
    assert top_k_agreement(A, A, 5).unique().tolist() == [1.0]
    expected = [
        len({*a.topk(5).indices.tolist()} & {*b.topk(5).indices.tolist()}) / 5
        for a, b in zip(A.flatten(0, 1), B.flatten(0, 1), strict=True)
    ]
    assert top_k_agreement(A, B, 5).flatten().tolist() == expected
    assert len(set(expected)) > 2
    assert (
        top_k_agreement(A, B).flatten().tolist() == (A.argmax(-1) == B.argmax(-1)).double().flatten().tolist()
    )


def test_likelihood_is_the_cross_entropy():
    targets = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(3))
    expected = functional.cross_entropy(A.double().movedim(-1, 1), targets, reduction="none")
    assert torch.allclose(negative_log_likelihood(A, targets), expected)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: kl_divergence(A, B[:3]), "expected equal shapes, got [4, 6, 11] and [3, 6, 11]"),
        (lambda: top_k_agreement(A, B, 12), "k: expected 1 to 11 for 11 logits, got 12"),
        (
            lambda: kl_divergence(torch.ones(()), torch.ones(())),
            "expected [..., V] with V at least 1, got []",
        ),
        (
            lambda: negative_log_likelihood(A, torch.zeros(4, dtype=torch.int64)),
            "targets: expected [4, 6] for logits [4, 6, 11], got [4]",
        ),
    ],
)
def test_shapes_are_named(act, message):
    with pytest.raises(ShapeError) as caught:
        act()
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_named(value):
    wrong = B.clone()
    wrong[1, 2, 3] = value
    with pytest.raises(
        UsageError, match=r"other logits: 1 of 264 values are NaN or Inf, the first at \[1, 2, 3\]"
    ):
        kl_divergence(A, wrong)


def test_no_tokens():
    assert kl_divergence(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
