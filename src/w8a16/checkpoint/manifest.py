"""The manifest: what was done to each module, so that loading needs no rules and no guesses.

It is a JSON text under the key `w8a16` in the header of the safetensors file itself, so it cannot be
separated from the tensors. docs/format.md is its specification.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from w8a16.checkpoint.header import Header, shown
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import CheckpointError
from w8a16.layers import Layout, kind_named, stored_tensors

FORMAT_VERSION = 1
METADATA_KEY = "w8a16"

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOAT_DTYPES}


@dataclass(frozen=True)
class ModuleRecord:
    """One quantized module."""

    kind: str
    weight_dtype: torch.dtype
    """The dtype that the float weights had."""
    weights: dict[str, tuple[Layout, tuple[int, ...]]]
    """For each float weight that is int8: how its codes lie, and their shape."""


@dataclass(frozen=True)
class Manifest:
    """What a file says about itself."""

    modules: dict[str, ModuleRecord]
    kept_float: dict[str, str]
    """Parameters of two or more dimensions that stayed float, each with its reason code."""
    ties: dict[str, str] = field(default_factory=dict)
    """State-dict keys that are not stored because they are the same tensor as the named, stored one."""
    non_persistent_buffers: tuple[str, ...] = ()
    """Tensors that are not part of the state dict; a skeleton on the meta device needs them."""
    source: str | None = None

    def to_json(self) -> str:
        """The manifest as compact JSON with sorted keys: same content, same bytes."""
        data: dict[str, Any] = {
            "format": "w8a16",
            "format_version": FORMAT_VERSION,
            "modules": {path: _record_to_dict(record) for path, record in self.modules.items()},
            "kept_float": self.kept_float,
            "ties": self.ties,
            "non_persistent_buffers": sorted(self.non_persistent_buffers),
            "source": self.source,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"))


def read_manifest(header: Header) -> Manifest:
    """Parse and check the manifest of a file.

    Raises:
        CheckpointError: no manifest (a float or foreign file), a newer format, or a manifest that
            does not match the tensors of the file.
    """
    path = shown(header.path)
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: not written by w8a16 (no manifest in the header): a float or foreign checkpoint; "
            "load it into the float model and call w8a16.quantize(model)"
        )
    try:
        data = json.loads(text)
        version = data["format_version"]
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: written by a newer w8a16 (format {version}; this one reads up to {FORMAT_VERSION})"
            )
        if data["format"] != "w8a16":
            raise ValueError(f"format {data['format']!r}")
        hidden = [str(name) for name in data["non_persistent_buffers"]]
        if len(set(hidden)) < len(hidden):
            raise ValueError("non_persistent_buffers names a buffer twice")
        manifest = Manifest(
            modules={name: _record_from_dict(record) for name, record in data["modules"].items()},
            kept_float={str(name): str(reason) for name, reason in data["kept_float"].items()},
            ties={str(alias): str(name) for alias, name in data["ties"].items()},
            non_persistent_buffers=tuple(hidden),
            source=data.get("source"),
        )
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path}: the manifest cannot be understood: {error!r}") from error
    _check_against_tensors(manifest, header)
    return manifest


def _record_to_dict(record: ModuleRecord) -> dict[str, Any]:
    weights = {name: _weight_to_dict(*weight) for name, weight in record.weights.items()}
    dtype = str(record.weight_dtype).removeprefix("torch.")
    return {"kind": record.kind, "weight_dtype": dtype, "weights": weights}


def _weight_to_dict(layout: Layout, shape: tuple[int, ...]) -> dict[str, Any]:
    """Shape of the codes, and of the layout what is not the usual `[N, ...]`."""
    data: dict[str, Any] = {"shape": list(shape)}
    usual = asdict(Layout())
    return {**data, **{name: value for name, value in asdict(layout).items() if value != usual[name]}}


def _record_from_dict(data: dict[str, Any]) -> ModuleRecord:
    if kind_named(data["kind"]) is None:
        raise ValueError(f"unknown layer kind {data['kind']!r}")
    weights = {str(name): _weight_from_dict(weight) for name, weight in data["weights"].items()}
    if not weights:
        raise ValueError("a module without weights")
    if unusable := [name for name in weights if not name or "." in name]:
        raise ValueError(f"weights named {unusable}")
    return ModuleRecord(data["kind"], _DTYPES[data["weight_dtype"]], weights)


def _weight_from_dict(data: dict[str, Any]) -> tuple[Layout, tuple[int, ...]]:
    shape = tuple(data["shape"])
    layout = Layout(**{name: value for name, value in data.items() if name != "shape"})
    numbers = (*shape, layout.lead, layout.groups)
    if not all(type(number) is int and number >= 0 for number in numbers) or layout.groups < 1:
        raise ValueError(f"shape {list(shape)}, {layout}")
    if not 1 <= layout.lead < len(shape) or type(layout.swapped) is not bool:
        raise ValueError(f"shape {list(shape)}, {layout}")
    if layout.groups > 1 and not (layout.swapped and layout.lead == 1 and shape[0] % layout.groups == 0):
        raise ValueError(f"shape {list(shape)}, {layout}")
    return layout, shape


def _check_against_tensors(manifest: Manifest, header: Header) -> None:
    problems = []
    for path, record in manifest.modules.items():
        for name, (dtype, shape) in stored_tensors(record.weights).items():
            key = f"{path}.{name}" if path else name
            info = header.tensors.get(manifest.ties.get(key, key))
            if info is None:
                problems.append(f"{shown(key)}: in the manifest, but not in the file")
            elif (info.dtype, info.shape) != (dtype, shape):
                problems.append(
                    f"{shown(key)}: expected {dtype} {list(shape)}, found {info.dtype} {list(info.shape)}"
                )
    problems += [
        f"{shown(alias)}: tied to {shown(name)}, which is not in the file"
        for alias, name in manifest.ties.items()
        if name not in header.tensors
    ]
    problems += [
        f"{shown(alias)}: tied to {shown(name)}, but stored as well"
        for alias, name in manifest.ties.items()
        if alias in header.tensors
    ]
    problems += [
        f"{shown(name)}: in the manifest, but not in the file"
        for name in manifest.non_persistent_buffers
        if manifest.ties.get(name, name) not in header.tensors
    ]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CheckpointError(f"{shown(header.path)}: the manifest does not match the tensors:\n{listed}")
