"""Does a checkpoint fit a model? Every mismatch is found before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from w8a16.checkpoint.container.header import TensorInfo
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.opened import below
from w8a16.checkpoint.records import Manifest, ModuleRecord
from w8a16.convert import added_names, dropped_names, effective_weight, weight_source
from w8a16.layers import (
    PARAMETER,
    LayerKind,
    Layout,
    QuantizedModule,
    kind_named,
    kind_of_module,
    kind_of_quantized,
    stored_tensors,
)

_Modules = dict[str, nn.Module]


def find_mismatches(model: nn.Module, stored: Mapping[str, TensorInfo], manifest: Manifest) -> list[str]:
    """List all that is missing, unexpected, or of another shape, dtype or class; empty where it fits."""
    modules = dict(model.named_modules(remove_duplicate=False))
    problems = _class_problems(modules, manifest)
    dropped = _dropped(modules, manifest)
    expected = _expected(model, modules, manifest, dropped)
    everything = {**stored, **{alias: stored[name] for alias, name in manifest.ties.items()}}
    hidden = {name: everything.pop(name) for name in manifest.non_persistent_buffers}
    problems += [f"{name}: missing in the checkpoint" for name in expected if name not in everything]
    problems += [
        f"{shown(name)}: unexpected, not in the model" for name in everything if name not in expected
    ]
    for name, tensor in expected.items():
        if tensor is not None and name in everything:
            problems += _tensor_problems(name, tensor, everything[name])
    problems += _hidden_problems(model, hidden, {*expected, *dropped})
    problems += _sharing_problems(modules, everything, manifest)
    return problems


def _class_problems(modules: _Modules, manifest: Manifest) -> list[str]:
    problems = []
    for path, record in manifest.modules.items():
        problem = module_problem(modules.get(path), record)
        if problem:
            problems.append(f"{shown(path) or 'the root'}: {problem}")
    for path, module in modules.items():
        if isinstance(module, QuantizedModule) and path not in manifest.modules:
            problems.append(f"{path or 'the root'}: int8 in the model, float in the checkpoint")
    return problems


def module_problem(module: nn.Module | None, record: ModuleRecord) -> str | None:
    """Why a module of the model cannot be what the record says, or None where it can."""
    kind = kind_named(record.kind)
    assert kind is not None  # read_manifest has checked it
    if module is None:
        return f"int8 in the checkpoint, not in the model (expected a {kind.float_name})"
    if isinstance(module, QuantizedModule):
        if kind_of_quantized(module) is not kind:
            return f"expected a {kind.quantized_type.__name__}, found a {type(module).__name__}"
        shapes = {name: tuple(module.codes_of(name).shape) for name in module.layouts}
        layouts = module.layouts
    elif kind is PARAMETER or kind_of_module(module) is kind:
        absent = [name for name in record.weights if weight_source(module, name) is None]
        if absent:
            return f"expected a {kind.float_name} with {', '.join(absent)}, found a {type(module).__name__}"
        floats = {name: tuple(effective_weight(module, name).shape) for name in record.weights}
        layouts = {} if kind is PARAMETER else kind.quantized_type.find_layouts(module)
        misfits = [name for name, (layout, _) in record.codes.items() if not layout.fits(floats[name])]
        if misfits:
            return f"{', '.join(misfits)}: the weight has another layout in the checkpoint"
        shapes = {name: layout.codes_shape(floats[name]) for name, (layout, _) in record.codes.items()}
    else:
        return f"expected a {kind.float_name}, found a {type(module).__name__}"
    # Square codes have the right shape either way.
    turned = [
        name
        for name, (layout, _) in record.codes.items()
        if not _may_lie(layout, layouts.get(name, layout), kind, isinstance(module, QuantizedModule))
    ]
    if turned:
        return f"{', '.join(turned)}: the weight has another layout in the checkpoint"
    stored = {name: shape for name, (_, shape) in record.codes.items()}
    if shapes.keys() != stored.keys():
        return f"expected int8 weights {sorted(shapes)}, found {sorted(stored)}"
    for name, shape in shapes.items():
        if shape != stored[name]:
            return f"expected a {name} {list(shape)}, found {list(stored[name])}"
    return None


def _may_lie(stored: Layout, own: Layout, kind: LayerKind, is_fixed: bool) -> bool:
    """Whether codes may lie as stored; a module that is not int8 yet may have them refined."""
    if stored == own:
        return True
    return not is_fixed and kind.refinable and stored.unrefined == own


def _dropped(modules: _Modules, manifest: Manifest) -> set[str]:
    """The names of the model's tensors that conversion will drop."""
    dropped = set()
    for path, record in manifest.modules.items():
        module = modules.get(path)
        if module is not None and not isinstance(module, QuantizedModule):
            dropped |= {below(path, name) for name in dropped_names(module, record.weights)}
    return dropped


def _expected(
    model: nn.Module, modules: _Modules, manifest: Manifest, dropped: set[str]
) -> dict[str, Tensor | None]:
    """The state-dict keys after conversion; None for int8 tensors, which the manifest check has covered."""
    state = model.state_dict(keep_vars=True)
    expected: dict[str, Tensor | None] = {key: value for key, value in state.items() if key not in dropped}
    for path, record in manifest.modules.items():
        module = modules.get(path)
        if module is None or isinstance(module, QuantizedModule):
            continue
        expected |= dict.fromkeys(below(path, name) for name in stored_tensors(record.codes))
        for name, value in added_names(module, record.weights).items():
            expected[below(path, name)] = value
    return expected


def _tensor_problems(name: str, tensor: Tensor, info: TensorInfo) -> list[str]:
    if info.shape != tuple(tensor.shape):
        return [f"{name}: expected shape {list(tensor.shape)}, found {list(info.shape)}"]
    if info.dtype != tensor.dtype and not (info.dtype.is_floating_point and tensor.is_floating_point()):
        return [f"{name}: expected {tensor.dtype}, found {info.dtype}"]
    return []


def _hidden_problems(model: nn.Module, hidden: dict[str, TensorInfo], held: set[str]) -> list[str]:
    """Buffers outside the state dict: those on the meta device must come from the checkpoint."""
    problems = []
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if not buffer.is_meta or name in held:
            continue
        info = hidden.get(name)
        if info is not None:
            # Not the sizes: position tables grow with the longest input seen so far.
            if (info.dtype, len(info.shape)) != (buffer.dtype, buffer.dim()):
                expected = f"{buffer.dtype} with {buffer.dim()} dimensions"
                problems.append(f"{name}: expected {expected}, found {info.dtype} {list(info.shape)}")
        else:
            problems.append(
                f"{name}: a buffer on the meta device that the checkpoint does not hold; build the "
                "skeleton with real buffers"
            )
    return problems


def _sharing_problems(modules: _Modules, stored: dict[str, TensorInfo], manifest: Manifest) -> list[str]:
    """One module under two paths can take one tensor only; the checkpoint must not hold two."""
    problems = []
    first: dict[int, str] = {}
    for path, module in modules.items():
        other = first.setdefault(id(module), path)
        if other == path:
            continue
        records = [manifest.modules[p] for p in (other, path) if p in manifest.modules]
        stored_names = {name for record in records for name in stored_tensors(record.codes)}
        names = {*module._parameters, *module._buffers, *stored_names, "bias"}
        for name in sorted(names):
            keys = [below(p, name) for p in (other, path)]
            if all(key in stored for key in keys) and len({manifest.ties.get(key, key) for key in keys}) > 1:
                problems.append(
                    f"{keys[1]}: the same tensor as {keys[0]} in the model, another one in the checkpoint"
                )
    return problems
