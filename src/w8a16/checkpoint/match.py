"""Does a checkpoint fit a model? Every mismatch is found before anything is changed."""

from __future__ import annotations

from torch import Tensor, nn

from w8a16.checkpoint.header import Header, shown
from w8a16.checkpoint.manifest import Manifest, ModuleRecord
from w8a16.convert import float_type_of
from w8a16.layers import QuantizedModule, kind_named, kind_of_quantized


def find_mismatches(model: nn.Module, header: Header, manifest: Manifest) -> list[str]:
    """List all that is missing, unexpected, or of another shape, dtype or class; empty where it fits."""
    modules = dict(model.named_modules(remove_duplicate=False))
    problems = []
    for path, record in manifest.modules.items():
        problem = _module_problem(modules.get(path), record)
        if problem:
            problems.append(f"{shown(path) or 'the root'}: {problem}")
    for path, module in modules.items():
        if isinstance(module, QuantizedModule) and path not in manifest.modules:
            problems.append(f"{path or 'the root'}: int8 in the model, float in the checkpoint")
    expected = _expected(model, modules, manifest)
    stored = {
        name: info for name, info in header.tensors.items() if name not in manifest.non_persistent_buffers
    }
    found = {**stored, **{alias: header.tensors[name] for alias, name in manifest.ties.items()}}
    problems += [f"{name}: missing in the checkpoint" for name in expected if name not in found]
    problems += [f"{shown(name)}: unexpected, not in the model" for name in found if name not in expected]
    for name, tensor in expected.items():
        info = found.get(name)
        if tensor is None or info is None:
            continue
        if info.shape != tuple(tensor.shape):
            problems.append(f"{name}: expected shape {list(tensor.shape)}, found {list(info.shape)}")
        elif info.dtype != tensor.dtype and not (info.dtype.is_floating_point and tensor.is_floating_point()):
            problems.append(f"{name}: expected {tensor.dtype}, found {info.dtype}")
    problems += _lost_buffers(model, expected, manifest)
    return problems


def _module_problem(module: nn.Module | None, record: ModuleRecord) -> str | None:
    kind = kind_named(record.kind)
    assert kind is not None  # read_manifest has checked it
    if module is None:
        return f"int8 in the checkpoint, not in the model (expected a {kind.float_type.__name__})"
    if isinstance(module, QuantizedModule):
        if kind_of_quantized(module) is not kind:
            return f"expected a {kind.quantized_type.__name__}, found a {type(module).__name__}"
        shape = tuple(module.int8_weights.shape)
    elif float_type_of(module) is kind.float_type:
        weight = module.weight
        assert isinstance(weight, Tensor)
        shape = tuple(weight.shape)
    else:
        return f"expected a {kind.float_type.__name__}, found a {type(module).__name__}"
    if shape != record.shape:
        return f"expected a weight {list(shape)}, found {list(record.shape)}"
    return None


def _expected(
    model: nn.Module, modules: dict[str, nn.Module], manifest: Manifest
) -> dict[str, Tensor | None]:
    """The state-dict keys after conversion; None for int8 tensors, which the manifest check has covered."""
    expected: dict[str, Tensor | None] = dict(model.state_dict(keep_vars=True))
    for path in manifest.modules:
        module = modules.get(path)
        if module is None or isinstance(module, QuantizedModule):
            continue
        prefix = f"{path}." if path else ""
        for key in [key for key in expected if key.startswith(prefix)]:
            del expected[key]
        expected[f"{prefix}int8_weights"] = expected[f"{prefix}scales"] = None
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            expected[f"{prefix}bias"] = bias
    return expected


def _lost_buffers(model: nn.Module, expected: dict[str, Tensor | None], manifest: Manifest) -> list[str]:
    held = {*expected, *manifest.non_persistent_buffers}
    return [
        f"{name}: a buffer on the meta device that the checkpoint does not hold; build the skeleton "
        "with real buffers"
        for name, buffer in model.named_buffers()
        if buffer.is_meta and name not in held
    ]
