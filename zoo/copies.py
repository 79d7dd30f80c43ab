"""Checks of everything that copies a quantized model: ties, files, state dicts, deepcopy, pickle."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn

import w8a16
from zoo.entry import SEED, Entry, make_inputs, make_model
from zoo.outputs import Unequal, call, identical
from zoo.result import NOT_APPLICABLE, OK


def tie_groups(model: nn.Module) -> list[tuple[str, ...]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tuple(group) for group in names.values() if len(group) > 1]


def check_ties(entry: Entry, quantized: nn.Module, twin: nn.Module) -> str:
    """What was one tensor in the float model is one tensor when quantized, loaded and dequantized."""
    groups = tie_groups(make_model(entry))
    if not groups:
        return f"{NOT_APPLICABLE}: nothing is tied"
    places = {"after quantize": quantized, "after load": _loaded(entry, quantized), "after dequantize": twin}
    for place, model in places.items():
        torn = [group for group in groups if not is_tied(model, group)]
        if torn:
            return f"{place} no longer one tensor: {'; '.join(' = '.join(group) for group in torn)}"
    return OK


def is_tied(model: nn.Module, group: tuple[str, ...]) -> bool:
    """Whether the parameters of these names still share memory, as a float tensor or as int8 codes."""
    return bool(set.intersection(*(_memory_behind(model, name) for name in group)))


def _memory_behind(model: nn.Module, name: str) -> set[int]:
    """Where the parameter lives: itself if it is still there, or else the int8 tensors of its module."""
    path, _, own = name.rpartition(".")
    while True:
        try:
            module = model.get_submodule(path)
            break
        except AttributeError:  # a parametrization was dropped with the module that it lived in
            path, _, own = path.rpartition(".")
    if own in module._parameters:
        return {module._parameters[own].data_ptr()}  # type: ignore[union-attr]
    held = [*module._parameters.values(), *module._buffers.values()]
    return {tensor.data_ptr() for tensor in held if tensor is not None and tensor.dtype == torch.int8}


def check_round_trip(entry: Entry, quantized: nn.Module) -> str:
    """A file, and a state dict, bring the same model back into one that was built with other weights."""
    expected = call(quantized, make_inputs(entry))
    loaded = _loaded(entry, quantized)
    _compare_states(loaded.state_dict(), quantized.state_dict())
    if not identical(call(loaded, make_inputs(entry)), expected):
        return "after save and load the outputs have other bits"
    fresh = w8a16.quantize(make_model(entry, SEED + 1))
    fresh.load_state_dict(quantized.state_dict(), strict=True)
    _compare_states(fresh.state_dict(), quantized.state_dict())
    return (
        OK if identical(call(fresh, make_inputs(entry)), expected) else "load_state_dict: other output bits"
    )


def check_copies(entry: Entry, quantized: nn.Module) -> str:
    """A deep copy and an unpickled model give the same bits; excused where the float model gives neither."""
    expected = call(quantized, make_inputs(entry))
    excused = []
    for name, duplicate in (("deepcopy", copy.deepcopy), ("pickle", _pickled)):
        try:
            made = duplicate(quantized)
        except Exception as error:
            if not _float_model_refuses(entry, duplicate):
                raise Unequal(f"{name}: {type(error).__name__}: {error}") from error
            excused.append(name)
            continue
        if not identical(call(made, make_inputs(entry)), expected):
            return f"{name}: the outputs have other bits"
    return f"{NOT_APPLICABLE}: {' and '.join(excused)} fails for the float model too" if excused else OK


def _float_model_refuses(entry: Entry, duplicate: Callable[[nn.Module], nn.Module]) -> bool:
    model = make_model(entry)
    call(model, make_inputs(entry))
    try:
        duplicate(model)
    except Exception:
        return True
    return False


def _pickled(model: nn.Module) -> nn.Module:
    made = pickle.loads(pickle.dumps(model))
    assert isinstance(made, nn.Module)
    return made


def _loaded(entry: Entry, quantized: nn.Module) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        w8a16.save(quantized, folder)
        return w8a16.load(make_model(entry, SEED + 1), folder).eval()


def _compare_states(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if state.keys() != expected.keys():
        raise Unequal(f"other names in the state dict: {sorted(state.keys() ^ expected.keys())[:5]}")
    other = [name for name, tensor in expected.items() if not identical([state[name]], [tensor])]
    if other:
        raise Unequal(f"other tensors in the state dict: {other[:5]}")
