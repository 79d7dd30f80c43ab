"""Drift of every int8 module: with float inputs, and with inputs as drifted so far.

The float side runs first. Where it calls a module, the int8 module is called on the same inputs at once:
that is its own drift. The float output is kept until the int8 model has come to the same call. What is
kept stays within a budget: modules beyond it wait for another run of the pair, so a small budget costs
time and never more memory than the budget and one module's outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from w8a16.errors import ComparisonError
from w8a16.layers import QuantizedModule
from w8a16.study.compare.drift import DriftSum
from w8a16.study.compare.nesting import float_tensors_in, paired_floats, positions_in_use
from w8a16.study.compare.running import run, without_fast_path
from w8a16.study.compare.sides import Sides
from w8a16.study.compare.units import Unit


@dataclass
class Observation:
    """What was seen of one unit so far."""

    unit: Unit
    own: DriftSum = field(default_factory=DriftSum)
    drifted: DriftSum = field(default_factory=DriftSum)
    depth: int | None = None
    note: str = ""

    @property
    def why_missing(self) -> str:
        """Why there is no drift of it, in words; "" where there is."""
        if self.depth is None:
            return "never called: the inputs do not reach it, or its weight is read by another module"
        return self.note


class Observer:
    """Collects the observations of all units over any number of batches."""

    def __init__(self, sides: Sides, units: list[Unit], budget: int) -> None:
        self._sides, self._budget = sides, budget
        self.observations = {unit.name: Observation(unit) for unit in units}
        self._by_site: dict[str, list[Observation]] = {}
        for unit in units:
            self._by_site.setdefault(unit.site, []).append(self.observations[unit.name])
        self._calls = 0

    def observe(self, batch: Any, number: int) -> tuple[Any, Any]:
        """Run the pair on one batch, as often as the budget needs; the outputs of both sides."""
        run_once = _Run(self._sides, self._by_site, self._budget, self._next_depth)
        outputs = run_once.run(batch, number, set(self._by_site), with_own=True)
        while run_once.deferred:
            run_once.run(batch, number, set(run_once.deferred), with_own=False)
        return outputs

    def _next_depth(self) -> int:
        self._calls += 1
        return self._calls - 1


class _Run:
    """Runs of the float side and then the int8 side, with what is kept between the two."""

    def __init__(
        self, sides: Sides, by_site: dict[str, list[Observation]], budget: int, next_depth: Any
    ) -> None:
        self._sides, self._by_site, self._budget, self._next_depth = sides, by_site, budget, next_depth
        self.deferred: list[str] = []
        self._kept: dict[str, list[dict[str, Tensor]]] = {}
        self._kept_bytes = 0
        self._arguments: dict[str, list[Any]] = {}
        self._inside = False
        self._in_use: Tensor | None = None

    def run(self, batch: Any, number: int, sites: set[str], with_own: bool) -> tuple[Any, Any]:
        """Observe these sites; those beyond the budget are in `deferred` afterwards."""
        self.deferred, self._kept, self._kept_bytes = [], {}, 0
        self._in_use = positions_in_use(batch)
        with self._sides.float_side() as model, _hooked() as handles:
            for path in sites:
                self._hook_float(handles, model.get_submodule(path), path, with_own)
            reference = run(model, batch, "float", number)
        with _hooked() as handles:
            for path in self._kept:
                site = self._sides.quantized.get_submodule(path)
                handles.append(site.register_forward_hook(self._compare_with_kept(path), prepend=True))
            quantized = run(self._sides.quantized, batch, "int8", number)
        for path, left in self._kept.items():
            if left:
                self._note(path, f"the float model calls it {len(left)} times more than the int8 model")
        self._kept = {}
        return reference, quantized

    # --- the float side ---------------------------------------------------------------------------

    def _hook_float(self, handles: list[Any], site: nn.Module, path: str, with_own: bool) -> None:
        copied = with_own and not _leaves_inputs_alone(site)

        def before(module: nn.Module, arguments: Any, options: Any) -> None:
            if not self._inside:
                self._count(path)
                inputs = _copied((arguments, options)) if copied else None
                self._arguments.setdefault(path, []).append(inputs)

        def after(module: nn.Module, arguments: Any, options: Any, output: Any) -> None:
            if self._inside:
                return
            inputs = self._arguments[path].pop() or (arguments, options)
            if with_own:
                self._inside = True
                try:
                    self._measure_own(path, inputs, output)
                finally:
                    self._inside = False
            self._keep(path, output)

        handles.append(site.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(site.register_forward_hook(after, with_kwargs=True, prepend=True))

    def _count(self, path: str) -> None:
        for observation in self._by_site[path]:
            if observation.depth is None:
                observation.depth = self._next_depth()

    def _measure_own(self, path: str, inputs: tuple[Any, Any], output: Any) -> None:
        for observation in self._by_site[path]:
            own = self._sides.own_output(observation.unit, *inputs)
            what = f"outputs of {path or 'the model'}"
            for _, ours, theirs in paired_floats(output, own, what, self._in_use):
                observation.own.add(ours, theirs)

    def _keep(self, path: str, output: Any) -> None:
        if path not in self._kept:
            if path in self.deferred or (self._kept and self._kept_bytes >= self._budget):
                if path not in self.deferred:
                    self.deferred.append(path)
                return
            self._kept[path] = []
        # Copies: what comes next may write into the output (an in-place activation).
        copies = {place: tensor.clone() for place, tensor in float_tensors_in(output).items()}
        self._kept_bytes += sum(tensor.numel() * tensor.element_size() for tensor in copies.values())
        self._kept[path].append(copies)

    # --- the int8 side ----------------------------------------------------------------------------

    def _compare_with_kept(self, path: str) -> Any:
        def after(module: nn.Module, arguments: Any, output: Any) -> None:
            waiting = self._kept[path]
            if not waiting:
                self._note(path, "the int8 model calls it more often than the float model")
                return
            try:
                pairs = paired_floats(waiting.pop(0), output, in_use=self._in_use)
            except ComparisonError:
                self._note(path, "its inputs have other shapes in the int8 model")
                return
            for observation in self._by_site[path]:
                for _, ours, theirs in pairs:
                    observation.drifted.add(ours, theirs)

        return after

    def _note(self, path: str, note: str) -> None:
        for observation in self._by_site[path]:
            observation.note = observation.note or note


@contextmanager
def _hooked() -> Iterator[list[Any]]:
    """A list of handles, all of which are removed at the end."""
    handles: list[Any] = []
    try:
        with without_fast_path():
            yield handles
    finally:
        for handle in handles:
            handle.remove()


def has_fast_path(model: nn.Module) -> bool:
    """Whether torch may run parts of `model` in fused kernels, which hooks keep it from."""
    fused = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
    return any(isinstance(module, fused) for module in model.modules())


def _leaves_inputs_alone(module: nn.Module) -> bool:
    """Whether the forward is one of those that are known not to write into their inputs."""
    cls = module.float_type if isinstance(module, QuantizedModule) else type(module)
    return cls.forward.__module__.startswith(("torch.nn.modules", "transformers.pytorch_utils"))


def _copied(value: Any) -> Any:
    """Inputs that stay what they are while the module runs: caches in them are copied as well."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(_copied(item) for item in value)
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    try:
        return copy.deepcopy(value)
    except Exception:  # foreign objects, which may not allow it: they stay shared
        return value
