"""The search for the cheapest configuration that keeps the budget.

The errors of different weights are nearly independent, so their drifts nearly add up: the drift of a
configuration is predicted as the sum over weights of (drift with this weight alone in int8) times (error
that its option leaves). Under that prediction the best configurations for every price are found by
buying one hull edge after the other, the one with the most drift per byte first: the greedy solution of
the multiple-choice knapsack problem, which is optimal wherever it stops on an edge.

The prediction only orders; measurements decide. How far to walk is found by bisection on measured
values, then upgrades that turn out not to be needed are given back, and the real int8 model has the last
word: where it misses the budget, the walk goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from w8a16.study.repair.options import Option
from w8a16.study.repair.workbench import FLOAT, Config, Trial, Workbench

_GIVING_BACK = 64
"""How many measurements the way back may take."""


@dataclass(frozen=True)
class Edge:
    """One more step of one weight along its options."""

    weight: int
    number: int
    """The option that it leads to."""
    gain: float
    """Predicted drift bought by a byte."""


def drifts_alone(bench: Workbench, options: Sequence[Sequence[Option]]) -> list[float]:
    """The drift with one weight in int8 and all others float, for each weight."""
    count = len(options)
    floats: Config = (FLOAT,) * count
    drifts = []
    for index in range(count):
        alone = (*floats[:index], 0, *floats[index + 1 :])
        drifts.append(max(0.0, bench.measure(alone).reading.drift))
        del bench.trials[alone]  # says nothing about a price
    return drifts


def edges_of(options: Sequence[Sequence[Option]], drifts: Sequence[float]) -> list[Edge]:
    """All edges of all hulls, the best bargain first; those of one weight are in the order of its hull."""
    edges = [
        Edge(index, number, drifts[index] * (a.error - b.error) / (b.bytes - a.bytes))
        for index, ways in enumerate(options)
        for number, (a, b) in enumerate(pairwise(ways), start=1)
    ]
    return sorted(edges, key=lambda edge: -edge.gain)


def search(bench: Workbench, edges: Sequence[Edge], count: int) -> Trial | None:
    """Find a cheap configuration that keeps the budget when it is really quantized; None: there is none."""
    path = _path(edges, count)
    found = _first_met(bench, path)
    if found is None:
        return _go_on(bench, edges, path[-1])
    for share in (1 / 4, 1 / 2, 3 / 4):  # more points for the curve
        bench.measure(path[round(found * share)])
    return _go_on(bench, edges, _give_back(bench, path[found]))


def _path(edges: Sequence[Edge], count: int) -> list[Config]:
    """The configurations on the way from plain int8 to the end."""
    path: list[Config] = [(0,) * count]
    for edge in edges:
        config = list(path[-1])
        config[edge.weight] = max(config[edge.weight], edge.number)
        path.append(tuple(config))
    return path


def _first_met(bench: Workbench, path: Sequence[Config]) -> int | None:
    """A place on the path that keeps the budget, with one right before it that does not."""
    if bench.measure(path[0]).reading.met:
        return 0
    low, high = 0, 1
    while not bench.measure(path[min(high, len(path) - 1)]).reading.met:
        if high >= len(path) - 1:
            return None
        low, high = high, high * 2
    high = min(high, len(path) - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if bench.measure(path[middle]).reading.met:
            high = middle
        else:
            low = middle
    return high


def _give_back(bench: Workbench, config: Config) -> Config:
    """Take single steps back, at the dearest weights first, as long as the budget is kept."""
    spent = [
        bench.bytes_added((*(0 for _ in config[:index]), number, *(0 for _ in config[index + 1 :])))
        for index, number in enumerate(config)
    ]
    left = _GIVING_BACK
    for index in sorted(range(len(config)), key=lambda index: -spent[index]):
        while config[index] > 0 and left > 0:
            left -= 1
            cheaper = (*config[:index], config[index] - 1, *config[index + 1 :])
            if not bench.measure(cheaper).reading.met:
                break
            config = cheaper
    return config


def _go_on(bench: Workbench, edges: Sequence[Edge], config: Config) -> Trial | None:
    """Verify, and buy the next edges (1, 2, 4, ...) for as long as the real model misses the budget."""
    step = 1
    while True:
        trial = bench.verify(config)
        if trial.reading.met:
            return trial
        ahead = [edge for edge in edges if edge.number > config[edge.weight]]
        if not ahead:
            return None
        for edge in ahead[:step]:
            config = (*config[: edge.weight], edge.number, *config[edge.weight + 1 :])
        step *= 2
