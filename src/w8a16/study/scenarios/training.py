"""One training loop for all scenarios: AdamW, a warm-up, a cosine down to nothing, a budget of steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from w8a16.study.scenarios.scenario import Progress

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model learns."""

    steps: int
    learning_rate: float
    """The highest one, reached after the warm-up."""
    weight_decay: float = 0.01
    """Of parameters with two or more dimensions; the others have none."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises linearly."""
    clip: float = 1.0
    """Largest norm of the gradient of all parameters together."""

    def shortened(self, quick: bool, factor: int = 2) -> Schedule:
        """If `quick`, the same with so many times fewer steps."""
        if not quick:
            return self
        steps = max(1, self.steps // factor)
        return Schedule(steps, self.learning_rate, self.weight_decay, self.warmup, self.clip)

    def rate(self, step: int) -> float:
        """The share of the learning rate at a step, counted from 0.

        Example:
            >>> schedule = Schedule(steps=100, learning_rate=1e-3)
            >>> [round(schedule.rate(step), 3) for step in (0, 9, 54, 99)]
            [0.1, 1.0, 0.517, 0.0]
        """
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, self.steps - rising)
        return 0.5 * (1 + math.cos(math.pi * done))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's and torch's random numbers inside, and give the caller's state back.

    Example:
        >>> before = torch.get_rng_state()
        >>> with seeded(7): first = torch.rand(1)
        >>> with seeded(7): first == torch.rand(1)
        tensor([True])
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(state)


def fit(
    model: _Module,
    loss: Callable[[torch.Generator], Tensor],
    schedule: Schedule,
    seed: int,
    progress: Progress,
) -> _Module:
    """Train a model in place and return it in evaluation mode.

    Args:
        model: float32, already initialised under the seed.
        loss: draws a batch with the generator and returns the loss of the model on it, a scalar.
        schedule: steps and learning rate.
        seed: of the batches, and of what the model draws itself (dropout).
        progress: called after every step.

    Raises:
        FloatingPointError: the loss is NaN or infinite: the schedule or the data of the scenario are wrong.
    """
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with seeded(seed):
        for step in range(schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.rate(step)
            value = loss(generator)
            if not torch.isfinite(value):
                raise FloatingPointError(f"step {step} of {schedule.steps}: the loss is {float(value)}")
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            progress(step + 1, schedule.steps)
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()
