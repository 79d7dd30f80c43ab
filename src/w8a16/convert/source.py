"""Where a layer's weight really comes from: a plain parameter, a parametrization, or a legacy hook.

`torch.nn.utils.parametrize` (weight_norm, spectral_norm, ...) and the older hook-based utilities
compute the weight from other parameters. What the layer multiplies by, the effective weight, is what
is quantized; the machinery that computed it is then dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import (
    SpectralNorm,
    SpectralNormLoadStateDictPreHook,
    remove_spectral_norm,
)
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

_LEGACY_HOOKS: dict[str, Any] = {
    "weight_norm": WeightNorm,
    "spectral_norm": SpectralNorm,
    "pruning": prune.BasePruningMethod,
}


@dataclass(frozen=True)
class WeightSource:
    """The parameters that a module's weight is made of."""

    how: str
    """"parameter", "parametrization", or the name of a legacy hook."""
    parameters: tuple[nn.Parameter, ...]
    """One for a plain parameter; all originals for a computed weight, the largest first."""

    buffers: tuple[Tensor, ...] = ()
    """What the machinery keeps besides parameters (singular vectors, masks); dropped with it."""

    @property
    def is_plain(self) -> bool:
        """Whether the weight simply is a parameter."""
        return self.how == "parameter"


def float_type_of(module: nn.Module) -> type[nn.Module]:
    """The module's class, seen through the subclass that a parametrization makes on the fly."""
    if parametrize.is_parametrized(module):
        return type(module).__bases__[0]
    return type(module)


def weight_source(module: nn.Module, name: str = "weight") -> WeightSource | None:
    """Find out how `module.<name>` comes about; None where it is computed in an unknown way."""
    if parametrize.is_parametrized(module, name):
        machinery = _parametrizations(module)[name]
        return WeightSource("parametrization", _largest_first(machinery.parameters()), _buffers(module, name))
    plain = module._parameters.get(name)
    if plain is not None:
        return WeightSource("parameter", (plain,), _buffers(module, name))
    found = _legacy_hook(module, name)
    if found is None:
        return None
    how, _ = found
    parameters = [module._parameters.get(f"{name}_{part}") for part in ("g", "v", "orig")]
    present = [parameter for parameter in parameters if parameter is not None]
    return WeightSource(how, _largest_first(present), _buffers(module, name))


def _buffers(module: nn.Module, name: str) -> tuple[Tensor, ...]:
    """Buffers of the machinery that computes a weight and the bias: they go when it goes."""
    found: list[Tensor | None] = []
    for each in dict.fromkeys((name, "bias")):
        if parametrize.is_parametrized(module, each):
            found += list(_parametrizations(module)[each].buffers())
        if _legacy_hook(module, each):
            found += [module._buffers.get(f"{each}_{part}") for part in ("u", "v", "mask")]
    return tuple(buffer for buffer in found if buffer is not None)


def effective_weight(module: nn.Module, name: str = "weight") -> Tensor:
    """The weight that the module multiplies by in evaluation mode; the module is not changed."""
    plain = module._parameters.get(name)
    if plain is not None:
        return plain
    with torch.no_grad():
        weight: Tensor = _effective(module, name)
        return weight.detach()


def take_weights(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the effective weights, and leave `module` a plain instance without what computed them.

    Whatever else was computed (a bias, say) becomes an ordinary parameter with its present value.
    """
    names = list(names)
    computed = [name for name in computed_names(module) if name not in names]
    with torch.no_grad():
        values = {name: _effective(module, name).detach() for name in names + computed}
    for name in names + computed:
        how, _ = _legacy_hook(module, name) or ("", None)
        if how == "weight_norm":
            remove_weight_norm(module, name)
        elif how == "spectral_norm":
            remove_spectral_norm(module, name)
            # torch wraps this hook and then does not find it again: loading would ask for `weight_orig`.
            _remove_load_hooks(module, lambda hook: isinstance(hook, SpectralNormLoadStateDictPreHook))
        elif how == "pruning":
            prune.remove(module, name)
    if parametrize.is_parametrized(module):
        # The dynamic subclass and this entry are all that parametrize adds.
        module.__class__ = float_type_of(module)
        del module._modules["parametrizations"]
        # torch's weight_norm leaves a local function behind, with which the module cannot be pickled.
        _remove_load_hooks(
            module, lambda hook: "_weight_norm_compat_hook" in getattr(hook, "__qualname__", "")
        )
    for name in computed:
        module.__dict__.pop(name, None)
        module._parameters[name] = nn.Parameter(values[name])
    return {name: values[name] for name in names}


def dropped_names(module: nn.Module, names: Iterable[str]) -> set[str]:
    """Names below `module` (in the manner of a state dict) that the conversion of the weights `names`
    drops: the float weights, and all that computes them or other parameters."""
    names = set(names)
    dropped = {name for name in names if module._parameters.get(name) is not None}
    for name in {*names, *computed_names(module)}:
        if _legacy_hook(module, name):
            own = {f"{name}_{part}" for part in ("g", "v", "orig", "u", "mask")}
            dropped |= own & {*module._parameters, *module._buffers}
    machinery = module._modules.get("parametrizations")
    if machinery is not None:
        for name, _ in [*machinery.named_parameters(), *machinery.named_buffers()]:
            dropped.add(f"parametrizations.{name}")
    return dropped


def added_names(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Parameters that the conversion of the weights `names` makes of what was computed, with their values."""
    names = set(names)
    return {name: _effective(module, name) for name in computed_names(module) if name not in names}


def dropped_parameters(module: nn.Module, names: Iterable[str]) -> list[nn.Parameter]:
    """What computes other parameters than `names`: the conversion of `names` drops it."""
    others = set(computed_names(module)).difference(names)
    sources = [weight_source(module, name) for name in sorted(others)]
    return [parameter for source in sources if source is not None for parameter in source.parameters]


def computed_names(module: nn.Module) -> list[str]:
    """The names of the parameters that this module computes in a way that is known."""
    names: list[str] = []
    if parametrize.is_parametrized(module):
        names += list(_parametrizations(module))
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, tuple(_LEGACY_HOOKS.values())):
            names.append(_hook_target(hook))
    return list(dict.fromkeys(names))


def _remove_load_hooks(module: nn.Module, left_behind: Callable[[Any], bool]) -> None:
    for key, hook in list(module._load_state_dict_pre_hooks.items()):
        if left_behind(getattr(hook, "hook", hook)):
            del module._load_state_dict_pre_hooks[key]


def _effective(module: nn.Module, name: str) -> Any:
    if parametrize.is_parametrized(module, name):
        # A copy in evaluation mode: spectral_norm's own would advance its power iteration.
        return copy.deepcopy(_parametrizations(module)[name]).eval()()
    found = _legacy_hook(module, name)
    if found is None:
        return getattr(module, name, None)
    how, hook = found
    if how == "spectral_norm":
        return hook.compute_weight(module, do_power_iteration=False)
    return hook.apply_mask(module) if how == "pruning" else hook.compute_weight(module)


def _parametrizations(module: nn.Module) -> Any:
    return module._modules["parametrizations"]


def _legacy_hook(module: nn.Module, tensor_name: str) -> tuple[str, Any] | None:
    for hook in module._forward_pre_hooks.values():
        for how, hook_type in _LEGACY_HOOKS.items():
            if isinstance(hook, hook_type) and _hook_target(hook) == tensor_name:
                return how, hook
    return None


def _hook_target(hook: Any) -> str:
    return str(getattr(hook, "name", None) or getattr(hook, "_tensor_name", ""))


def _largest_first(parameters: Iterable[nn.Parameter]) -> tuple[nn.Parameter, ...]:
    return tuple(sorted(parameters, key=lambda parameter: -parameter.numel()))
