from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from w8a16.errors import UsageError
from w8a16.study.scenarios import SCENARIOS, Schedule, Scores, fit, scenario_named, seeded


def train(seed: int, steps: int = 40, factor: float = 1.0) -> tuple[nn.Module, list[tuple[int, int]]]:
    """A regression that can be solved exactly."""
    with seeded(seed):
        model = nn.Linear(4, 2)

    def loss(generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(16, 4, generator=generator)
        return factor * (model(x) - x[:, :2]).square().mean() + 0 * torch.rand(())

    calls: list[tuple[int, int]] = []
    fit(model, loss, Schedule(steps, 0.05), seed, lambda done, total: calls.append((done, total)))
    return model, calls


def test_a_model_learns_and_is_left_in_evaluation_mode() -> None:
    model, calls = train(seed=0, steps=150)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        error = model(x) - x[:, :2]
    assert float(error.square().mean()) < 0.01 * float(x[:, :2].square().mean())
    assert not model.training
    assert calls == [(step, 150) for step in range(1, 151)]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    first, again, other = train(3)[0], train(3)[0], train(4)[0]
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_the_callers_random_state_is_untouched_also_by_a_failure() -> None:
    before, python = torch.get_rng_state(), random.getstate()
    train(0, steps=2)
    with pytest.raises(FloatingPointError):
        train(0, steps=1, factor=float("inf"))
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(FloatingPointError, match="step 0 of 3: the loss is nan"):
        fit(model, lambda g: model.weight.sum() * float("nan"), Schedule(3, 0.1), 0, lambda done, total: None)


def test_quick_takes_a_part_of_the_steps() -> None:
    assert Schedule(100, 0.1).shortened(quick=False).steps == 100
    assert Schedule(100, 0.1).shortened(quick=True).steps == 50
    assert Schedule(2, 0.1).shortened(quick=True).steps == 1


def test_losses_are_positive_where_the_model_is_worse() -> None:
    one, two = torch.tensor([1.0, 2.0]).double(), torch.tensor([1.5, 1.0]).double()
    lower = Scores("loss", "nats", "lower", two).losses_against(Scores("loss", "nats", "lower", one))
    higher = Scores("accuracy", "", "higher", two).losses_against(Scores("accuracy", "", "higher", one))
    assert lower.tolist() == [0.5, -1.0]
    assert higher.tolist() == [-0.5, 1.0]


@pytest.mark.parametrize("values", [torch.ones(3), torch.ones(0).double(), torch.ones(2, 2).double()])
def test_scores_that_cannot_be_paired_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected float64 \[examples\], at least one, got"):
        Scores("loss", "", "lower", values)


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'text-gtp': expected one of .*text-gpt"):
        scenario_named("text-gtp")
    assert len(set(SCENARIOS)) == len(SCENARIOS) > 0
