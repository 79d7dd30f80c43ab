"""Which modules are fused experts, and how their weights lie: told by structure, not by class names.

Two families hold the weights of all experts of a layer in one parameter:

* classes made by transformers' `use_experts_implementation`, which says on every instance whether
  there is a gate and a bias and whether the weights are stored as `[E, in, out]`;
* classes of their own, which have three-dimensional parameters, count experts in an attribute, and
  loop over them. Whether these are `[E, out, in]` or `[E, in, out]` follows from the shapes: what the
  first projection gives out, once or twice (with a gate), is what the second one takes in.

E experts.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from w8a16.layers.layout import Layout

Shape = tuple[int, ...]

ROWS_OF_EXPERTS = Layout(lead=2)
"""`[E, out, in]`"""
COLUMNS_OF_EXPERTS = Layout(lead=2, swapped=True)
"""`[E, in, out]`"""

_INPUT_SIZES = ("hidden_size", "hidden_dim", "input_size", "in_features")
_OUTPUT_SIZES = ("output_size", "out_features")


def expert_layouts(module: nn.Module) -> dict[str, Layout]:
    """The fused expert weights of a module by name; empty where it has none, or none that are clear."""
    stacks = _stacks(module)
    if not stacks:
        return {}
    if is_dispatched(module):
        names = [name for name in projections(module) if name in stacks]
        layout = COLUMNS_OF_EXPERTS if module.is_transposed else ROWS_OF_EXPERTS
        return dict.fromkeys(names, layout)
    counts = {v for k, v in vars(module).items() if "expert" in k.lower() and type(v) is int}
    return _by_shapes(module, {name: s for name, s in stacks.items() if s[0] in counts and min(s[1:]) > 1})


def has_experts(module: nn.Module) -> bool:
    """Whether a module holds fused experts."""
    return bool(expert_layouts(module))


def projections(module: nn.Module) -> tuple[str, str]:
    """The names of the two weights of a module made by transformers' decorator."""
    return ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")


def is_dispatched(module: nn.Module) -> bool:
    """Whether transformers' decorator made the class of a module, or one that it inherits from."""
    return hasattr(module, "has_gate") and dispatched_class(type(module)) is not None


def dispatched_class(float_type: type[nn.Module]) -> type[nn.Module] | None:
    """The nearest class in the line of `float_type` whose forward is the decorator's dispatcher."""
    return next((cls for cls in float_type.__mro__ if forwards_by_dispatch(cls)), None)


def forwards_by_dispatch(float_type: type) -> bool:
    """Whether the forward of a class asks transformers' interface for the implementation to run."""
    code = getattr(getattr(float_type, "forward", None), "__code__", None)
    return code is not None and "experts_interface" in code.co_freevars


def _stacks(module: nn.Module) -> dict[str, Shape]:
    """The shapes of the three-dimensional parameters, computed ones included."""
    values: dict[str, Any] = dict(module._parameters)
    if parametrize.is_parametrized(module):
        computed: list[str] = list(module._modules["parametrizations"])  # type: ignore[call-overload]
        values |= {name: getattr(module, name) for name in computed}
    return {
        name: tuple(value.shape)
        for name, value in values.items()
        if value is not None and not is_lazy(value) and value.dim() == 3
    }


def _by_shapes(module: nn.Module, stacks: dict[str, Shape]) -> dict[str, Layout]:
    """The only layout that fits the shapes, for the weights that it fits; nothing where both would do."""
    fitting: dict[Layout, set[str]] = {}
    for up, (_, a, b) in stacks.items():
        for down, (_, c, d) in stacks.items():
            if up != down and b == c and a in (d, 2 * d):
                fitting.setdefault(ROWS_OF_EXPERTS, set()).update((up, down))
            if up != down and a == d and b in (c, 2 * c):
                fitting.setdefault(COLUMNS_OF_EXPERTS, set()).update((up, down))
    return _only(fitting) or _by_sizes(module, stacks)


def _by_sizes(module: nn.Module, stacks: dict[str, Shape]) -> dict[str, Layout]:
    """Ask the attributes that say how wide the input and the output of the experts are."""
    inputs, outputs = _sizes(module, _INPUT_SIZES), _sizes(module, _OUTPUT_SIZES)
    fitting: dict[Layout, set[str]] = {}
    for name, (_, a, b) in stacks.items():
        # Without a size for the output, a projection down gives out what the first one takes in.
        narrow, wide = (outputs or inputs, set()) if "down" in name else (outputs, inputs)
        as_rows, as_columns = b in wide or a in narrow, a in wide or b in narrow
        if a != b and as_rows != as_columns:
            layout = ROWS_OF_EXPERTS if as_rows else COLUMNS_OF_EXPERTS
            fitting.setdefault(layout, set()).add(name)
    return _only(fitting)


def _only(fitting: dict[Layout, set[str]]) -> dict[str, Layout]:
    if len(fitting) != 1:
        return {}
    ((layout, names),) = fitting.items()
    return dict.fromkeys(sorted(names), layout)


def _sizes(module: nn.Module, names: tuple[str, ...]) -> set[int]:
    return {value for name in names if type(value := getattr(module, name, None)) is int}
