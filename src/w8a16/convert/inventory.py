"""The parameters of a model, each once, with every place it appears at."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from w8a16.layers import QuantizedModule, int8_names


@dataclass(frozen=True)
class Place:
    """One name of a parameter: the module that owns it, the module's path, and the name there."""

    module: nn.Module
    path: str
    name: str
    layer: nn.Module
    """The module itself, or the layer that it is a parametrization of."""

    @property
    def full_name(self) -> str:
        """The name in `model.named_parameters()`."""
        return f"{self.path}.{self.name}" if self.path else self.name


@dataclass
class Entry:
    """One parameter (or several that share their memory) and its places, in the model's order."""

    parameter: nn.Parameter
    key: Hashable
    places: list[Place] = field(default_factory=list)


def inventory(model: nn.Module) -> list[Entry]:
    """List every parameter once; tied parameters are one entry with several places."""
    entries: dict[Hashable, Entry] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        layer = modules[path.partition(".parametrizations.")[0]] if ".parametrizations." in path else module
        if path.startswith("parametrizations."):
            layer = model
        held = int8_names(module.layouts) if isinstance(module, QuantizedModule) else set()
        for name, parameter in module._parameters.items():
            if parameter is not None and name not in held:
                key = tie_key(parameter)
                entry = entries.setdefault(key, Entry(parameter, key))
                entry.places.append(Place(module, path, name, layer))
    return list(entries.values())


def biases_shared_beyond(model: nn.Module, layers: Iterable[nn.Module]) -> set[Hashable]:
    """Keys of the biases of `layers` that other parts of the model hold too.

    A bias becomes a buffer with its layer; one that is tied to a parameter elsewhere must stay that
    parameter, or the two would come apart at the first copy.
    """
    converted = {id(layer) for layer in layers}
    shared = set()
    for entry in inventory(model):
        own = [place.name == "bias" and id(place.module) in converted for place in entry.places]
        if any(own) and not all(own):
            shared.add(entry.key)
    return shared


def is_uninitialized(tensor: Tensor) -> bool:
    """Whether it is a lazy parameter or buffer, which has no shape yet."""
    return bool(is_lazy(tensor))


def tie_key(tensor: Tensor) -> Hashable:
    """Equal for tensors that are the same memory, read the same way.

    Most ties are one object under two names; some are two Parameters around one storage.
    """
    if is_uninitialized(tensor) or tensor.is_meta or type(tensor) not in (Tensor, nn.Parameter):
        return id(tensor)
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # sparse, fake and the like have no storage of their own
        return id(tensor)
    if address == 0:
        return id(tensor)
    return (address, tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
