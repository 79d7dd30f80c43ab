"""Int8 modules that compute with float weights for a while: the float model without a second model.

Inside the block each named module has a class that, when it is called, fetches the float weights,
becomes the float module that it was made from, runs, drops the weights and is int8 again. So the model
is never in memory twice: beside the int8 tensors there is one float layer at a time.

Model code also reads weights without calling their module (`F.linear(x, embedding.weight)`); it gets the
float weight too. The weights fetched last are kept until others are, so that reading `weight.dtype`
before a call costs no second fetch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from w8a16.errors import CheckpointError, ComparisonError, UsageError
from w8a16.layers import QuantizedModule, int8_names
from w8a16.layers.base import rebind_methods

WeightSource = Callable[[str], Tensor]
"""The full name of a float weight ("encoder.layer.0.query.weight") to its float values."""

_MODE = "_float_mode"


@contextmanager
def float_mode(
    model: nn.Module, weights: WeightSource, names: Collection[str] | None = None
) -> Iterator[FloatMode]:
    """Let int8 modules of `model` compute with their float weights inside the block.

    The modules, their hooks, attributes and ties stay the same objects; after the block, also after an
    error, the model is int8 again with the same bits. A module that is int8 in part uses the float
    weights for that part. Biases and all else are those of the int8 model.

    Args:
        model: a quantized model.
        weights: called with the full name of a weight when it is needed; with another of its names
            where that raises `KeyError` or `CheckpointError`, for tied weights that are stored once.
        names: paths of int8 modules; default: all. Tied modules are not added.

    Raises:
        UsageError: a name that is no int8 module, or a model that is in float mode already.
        ComparisonError: when a module runs: there is no weight of any of its names, or of another shape.

    Example:
        >>> import copy, w8a16
        >>> model = nn.Linear(64, 8)
        >>> quantized = w8a16.quantize(copy.deepcopy(model))
        >>> x = torch.randn(2, 64)
        >>> with torch.no_grad(), float_mode(quantized, lambda name: model.state_dict()[name]):
        ...     torch.equal(quantized(x), model(x))
        True
    """
    modules = int8_modules(model)
    if names is not None:
        unknown = sorted(set(names) - modules.keys())
        if unknown:
            raise UsageError(f"names: no int8 module is called {', '.join(map(repr, unknown))}")
    chosen = {id(modules[name]): modules[name] for name in (modules if names is None else names)}
    entered = [module for module in chosen.values() if _MODE in module.__dict__]
    if entered:
        raise UsageError(f"the model is in float mode already: {type(entered[0]).__name__}")
    mode = FloatMode(model, weights)
    try:
        for module in chosen.values():
            mode.enter(module)
        yield mode
    finally:
        for module in chosen.values():
            if _MODE in module.__dict__:
                mode.leave(module)
        mode.forget()


def int8_modules(model: nn.Module) -> dict[str, QuantizedModule]:
    """Every int8 module by each of its paths."""
    named = model.named_modules(remove_duplicate=False)
    return {path: module for path, module in named if isinstance(module, QuantizedModule)}


class FloatMode:
    """Where the modules of one block get their float weights from; one layer's are held at a time."""

    def __init__(self, model: nn.Module, weights: WeightSource) -> None:
        self._weights, self._names = weights, _weight_names(int8_modules(model))
        self._held: tuple[QuantizedModule, dict[str, nn.Parameter]] | None = None

    def enter(self, module: QuantizedModule) -> None:
        """Give `module` the class that computes in float."""
        cls = type(module)
        module.__dict__[_MODE] = self
        module.__class__ = _float_mode_class(cls)
        rebind_methods(module, cls.forward, type(module).forward)

    def leave(self, module: QuantizedModule) -> None:
        """Give it its int8 class back."""
        cls = type(module)
        del module.__dict__[_MODE]
        module.__class__ = cast(Any, cls).computes_in_int8
        rebind_methods(module, cls.forward, type(module).forward)

    @contextmanager
    def paused(self, module: QuantizedModule) -> Iterator[None]:
        """Let one module compute in int8 inside the block."""
        self.leave(module)
        try:
            yield
        finally:
            self.enter(module)

    def weight(self, module: QuantizedModule, name: str) -> nn.Parameter:
        """One float weight of a module, in the dtype and on the device that it would have there."""
        if self._held is None or self._held[0] is not module:
            self.forget()  # before the next one is fetched
            self._held = (module, {})
        found = self._held[1]
        if name not in found:
            # As trainable as in the float model: torch folds batches in another way for such weights.
            found[name] = nn.Parameter(self._fetch(module, name))
        return found[name]

    def forget(self) -> None:
        """Drop the weights fetched last."""
        self._held = None

    def _fetch(self, module: QuantizedModule, name: str) -> Tensor:
        names = self._names[id(module), name]
        for full_name in names:
            try:
                value = self._weights(full_name).detach()
                break
            except (KeyError, CheckpointError) as error:
                reason = error
        else:
            raise ComparisonError(
                f"weights: no float weight for {' or '.join(map(repr, names))} ({reason})"
            ) from reason
        codes = module.codes_of(name)
        expected = module.layouts[name].float_shape(tuple(codes.shape))
        if tuple(value.shape) != expected:
            raise ComparisonError(f"weights: expected {full_name} {list(expected)}, got {list(value.shape)}")
        value = value.to(codes.device, module.weight_dtype)
        # Such tables shorten their rows in place, and the source may have lent its own memory.
        return value.clone() if getattr(module, "max_norm", None) is not None else value


def _weight_names(modules: Mapping[str, QuantizedModule]) -> dict[tuple[int, str], tuple[str, ...]]:
    """All full names of each weight, those of its own module first, then those of tied ones."""
    own: dict[tuple[int, str], list[str]] = {}
    tied: dict[int, list[str]] = {}
    for path, module in modules.items():
        for name in module.layouts:
            full_name = f"{path}.{name}" if path else name
            own.setdefault((id(module), name), []).append(full_name)
            tied.setdefault(id(module.codes_of(name)), []).append(full_name)
    found = {}
    for module in modules.values():
        for name in module.layouts:
            every = [*own[id(module), name], *tied[id(module.codes_of(name))]]
            found[id(module), name] = tuple(dict.fromkeys(every))
    return found


# --- the classes ------------------------------------------------------------------------------------

_CLASSES: dict[type[QuantizedModule], type[QuantizedModule]] = {}


def _float_mode_class(cls: type[QuantizedModule]) -> type[QuantizedModule]:
    """A subclass of the int8 class whose forward is that of the float class."""
    if cls not in _CLASSES:
        namespace = {
            "computes_in_int8": cls,
            "float_type": cls.float_type,
            "weight_names": cls.weight_names,
            "float_weight": _float_weight,
            "__module__": cls.__module__,
            "__doc__": f"{cls.__qualname__} in float mode.",
        }
        metaclass: Any = type(cls)
        _CLASSES[cls] = made = metaclass(cls.__name__, (cls,), namespace)
        made.forward = _forward  # now: the class of some kinds writes its own when it is made
    return _CLASSES[cls]


def _float_weight(self: QuantizedModule, name: str) -> Any:
    if name not in self.layouts:
        return self._parameters.get(name)
    mode: FloatMode = self.__dict__[_MODE]
    return mode.weight(self, name)


def _forward(self: QuantizedModule, *arguments: Any, **options: Any) -> Any:
    with _as_float_module(self):
        return self.forward(*arguments, **options)


@contextmanager
def _as_float_module(module: QuantizedModule) -> Iterator[None]:
    """Make the float module of it, with fetched weights, and the same int8 module again."""
    mode: FloatMode = module.__dict__[_MODE]
    cls, layouts, weight_dtype = type(module), module.layouts, module.weight_dtype
    floats = {name: mode.weight(module, name) for name in layouts}
    parameters, buffers = dict(module._parameters), dict(module._buffers)
    before = set(module.__dict__)
    try:
        module.restore(floats)
        yield
    finally:
        held, float_forward = int8_names(layouts), type(module).forward
        module.__class__ = cls
        module._parameters.clear()
        module._parameters.update(parameters)
        # A forward may have put new tensors into other buffers: those stay.
        others = {name: value for name, value in module._buffers.items() if name not in held}
        module._buffers.clear()
        module._buffers.update({name: others.pop(name, buffers[name]) for name in buffers})
        module._buffers.update(others)
        for name in ("_flat_weights", "_flat_weight_refs"):
            if name not in before:  # what a recurrent float module keeps beside its parameters
                module.__dict__.pop(name, None)
        module.__dict__.update(layouts=layouts, weight_dtype=weight_dtype)
        rebind_methods(module, float_forward, cls.forward)
