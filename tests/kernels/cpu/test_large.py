"""A layer with more than 2^31 weights: every index is 64 bits wide. Needs about 9 GB of memory."""

import pytest
import torch

from support.numerics import seeded
from w8a16.kernels import embedding, linear, linear_input_grad, quantize_weight

N, K = 2_100_000, 1024
LAST = slice(N - 3, N)
pytestmark = [pytest.mark.slow, pytest.mark.every_variant]


@pytest.fixture(scope="module")
def large():
    """Codes 1 everywhere but in the last three rows, which lie beyond element 2^31."""
    q = torch.ones((N, K), dtype=torch.int8)
    assert (N - 3) * K > 2**31
    q[LAST] = torch.randint(-127, 128, (3, K), dtype=torch.int8, generator=seeded(0))
    return q


@pytest.mark.parametrize("m", [1, 4, 40])
def test_linear(large, m):
    x = torch.randint(-8, 9, (m, K), generator=seeded(1)).float()
    y = linear(x, large, torch.ones(N), None)
    assert torch.equal(y[:, LAST], (x.long() @ large[LAST].long().T).float())
    assert torch.equal(y[:, : N - 3], x.sum(1, keepdim=True).expand(-1, N - 3))
    assert y[:, LAST].norm() > 0


def test_input_grad(large):
    grad = torch.zeros(2, N)
    grad[:, LAST] = torch.tensor([[1.0, -2.0, 3.0], [0.0, 1.0, 0.0]])
    dx = linear_input_grad(grad, large, torch.ones(N))
    assert torch.equal(dx, (grad[:, LAST].long() @ large[LAST].long()).float())
    assert dx.norm() > 0


def test_embedding(large):
    rows = embedding(torch.tensor([N - 1, 0, N - 3]), large, torch.full((N,), 0.5), torch.float32)
    assert torch.equal(rows, large[[N - 1, 0, N - 3]] * 0.5)


def test_quantize(large):
    weights = large.to(torch.bfloat16)
    quantized = quantize_weight(weights)
    assert torch.equal(quantized.scales[:4], torch.full((4,), 1 / 127))
    assert quantized.int8_weights[: N - 3 : 70_001].eq(127).all()
    assert torch.equal(quantized.int8_weights[LAST], quantize_weight(weights[LAST]).int8_weights)
