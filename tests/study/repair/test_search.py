"""The search against brute force, on drifts that add up, do not add up, and cannot be bought."""

import itertools
import random

import pytest

from w8a16.study.repair.options import Option
from w8a16.study.repair.search import drifts_alone, edges_of, search
from w8a16.study.repair.workbench import FLOAT, Trial
from w8a16.study.repair.yardstick import Reading


class Bench:
    """Stands in for a model: the drift of a configuration is a sum, up to `noise` of it either way."""

    def __init__(self, options, drifts, limit, noise=0.0, real=1.0):
        self.options, self.drifts, self.limit, self.noise, self.real = options, drifts, limit, noise, real
        self.trials, self.verified = {}, []

    def measure(self, config):
        self.trials[config] = self._trial(config, 1.0, False)
        return self.trials[config]

    def verify(self, config):
        self.verified.append(self._trial(config, self.real, True))
        return self.verified[-1]

    def bytes_added(self, config):
        return sum(ways[n].bytes - ways[0].bytes for n, ways in zip(config, self.options, strict=True))

    def _trial(self, config, factor, real):
        errors = [0 if n == FLOAT else ways[n].error for n, ways in zip(config, self.options, strict=True)]
        drift = factor * sum(d * e for d, e in zip(self.drifts, errors, strict=True))
        drift *= 1 + self.noise * random.Random(str(config)).uniform(-1, 1)
        price = 0 if FLOAT in config else self.bytes_added(config)
        return Trial(config, Reading(drift, drift, drift <= self.limit), price, real)


def hull(rng):
    """Options whose bytes and errors lie on a convex curve that ends at float."""
    steps = sorted((rng.uniform(0.1, 10), rng.randint(1, 60)) for _ in range(rng.randint(0, 3)))
    steps = sorted(steps, key=lambda step: -step[0] / step[1])
    total, price, error = sum(gain for gain, _ in steps) or 1.0, 100, 1.0
    ways = [Option("int8", None, price, 1.0)]
    for gain, cost in steps:
        price, error = price + cost, error - gain / total
        ways.append(Option("finer", None, price, max(0.0, error)))
    return ways


def problem(seed, **settings):
    rng = random.Random(seed)
    options = [hull(rng) for _ in range(5)]
    drifts = [rng.uniform(0, 1) ** 3 for _ in options]
    least = sum(d * ways[-1].error for d, ways in zip(drifts, options, strict=True))
    limit = least + rng.uniform(0.02, 0.9) * (sum(drifts) - least)
    return Bench(options, drifts, limit, **settings)


def solve(bench):
    return search(bench, edges_of(bench.options, drifts_alone(bench, bench.options)), len(bench.options))


def cheapest(bench):
    configs = itertools.product(*(range(len(ways)) for ways in bench.options))
    return min(bench.bytes_added(c) for c in configs if bench.verify(c).reading.met)


def test_no_more_than_one_edge_above_the_optimum():
    """The greedy walk is optimal up to the last edge; over many problems it is close to the optimum."""
    spent = optimal = exact = 0
    for seed in range(60):
        bench = problem(seed)
        found = solve(bench)
        assert found is not None
        assert found.real
        assert found.reading.value <= bench.limit
        best = cheapest(bench)
        dearest = max(
            b.bytes - a.bytes for ways in bench.options for a, b in itertools.pairwise([ways[0], *ways])
        )
        assert best <= found.bytes_added <= best + dearest
        spent, optimal, exact = spent + found.bytes_added, optimal + best, exact + (found.bytes_added == best)
    assert optimal > 1000
    assert exact >= 30
    assert spent <= 1.1 * optimal


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_measurements_decide_where_drifts_do_not_add_up(noise):
    kept = 0
    for seed in range(40):
        bench = problem(seed, noise=noise)
        found = solve(bench)
        if found is None:
            ends = tuple(len(ways) - 1 for ways in bench.options)
            assert not bench.verify(ends).reading.met
        else:
            assert found.reading.value <= bench.limit
            kept += 1
    assert kept >= 30


def test_the_search_goes_on_where_the_real_model_drifts_more_than_the_simulation():
    for seed in range(20):
        bench = problem(seed, real=1.02)
        found = solve(bench)
        if found is not None:
            assert 1.02 * bench.measure(found.config).reading.value <= bench.limit * (1 + 1e-9)
        misses = [trial for trial in bench.verified if not trial.reading.met]
        assert found is None or bench.verified[-1] is found
        assert all(trial.real for trial in misses)
    assert any(len(bench.verified) > 1 for bench in map(_solved, range(20)))


def _solved(seed):
    bench = problem(seed, real=1.02)
    solve(bench)
    return bench


def test_nothing_to_buy():
    bench = Bench([[Option("int8", None, 100, 1.0)]] * 3, [0.1, 0.2, 0.3], limit=0.5)
    assert solve(bench) is None
    assert len(bench.verified) == 1


def test_the_first_edge_is_the_best_bargain():
    options = [[Option("int8", None, 10, 1.0), Option("finer", None, 20, 0.5)]] * 2
    edges = edges_of(options, [1.0, 3.0])
    assert [(edge.weight, edge.gain) for edge in edges] == [(1, 0.15), (0, 0.05)]
