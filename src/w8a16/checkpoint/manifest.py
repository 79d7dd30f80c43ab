"""The manifest: what was done to each module, so that loading needs no rules and no guesses.

It is a JSON text under the key `w8a16` in the header of each safetensors file, so it cannot be
separated from the tensors. docs/format.md is its specification.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from w8a16.checkpoint.container.header import Header, build_header, shown
from w8a16.checkpoint.records import FORMAT_VERSION, Manifest, ModuleRecord, Source, WeightRecord
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import CheckpointError
from w8a16.layers import Layout, kind_named

METADATA_KEY = "w8a16"
ORIGINS = {
    "model": "saved from a model in memory",
    "classes": "from the classes of the model, without its weights",
    "names": "guessed from the names and shapes of the tensors",
}
"""How it was known what each tensor is."""

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOAT_DTYPES}
_LARGEST_SQNR, _LARGEST_ERROR = 999.99, 99.999999


def manifest_json(manifest: Manifest) -> str:
    """The manifest as compact JSON with sorted keys: same content, same bytes."""
    return json.dumps(manifest_to_data(manifest), sort_keys=True, separators=(",", ":"))


def manifest_to_data(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain data, for JSON."""
    return {
        "format": "w8a16",
        "format_version": _version_of(manifest),
        "modules": {path: _record_to_dict(record) for path, record in manifest.modules.items()},
        "kept_float": manifest.kept_float,
        "ties": manifest.ties,
        "non_persistent_buffers": sorted(manifest.non_persistent_buffers),
        "checksums": {key: f"{value:08x}" for key, value in manifest.checksums.items()},
        "source": _source_to_dict(manifest.source),
        "origin": manifest.origin,
    }


def _version_of(manifest: Manifest) -> int:
    """The oldest version that can say it, so that older readers read what they can."""
    layouts = (weight.layout for record in manifest.modules.values() for weight in record.weights.values())
    return FORMAT_VERSION if any(layout.refinement for layout in layouts) else 2


def file_metadata(manifest: Manifest) -> dict[str, str]:
    """The `__metadata__` of a file with this manifest."""
    # "format" is what transformers and others look for.
    return {"format": "pt", METADATA_KEY: manifest_json(manifest)}


def reserved_header_bytes(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], manifest: Manifest
) -> int:
    """How long the header can become once checksums and error figures are known, its padding included.

    Both are known only after the tensors have been written behind it. Give the result to `build_header`
    as `length`, with the manifest that is complete then.
    """
    modules = {path: _widest(record) for path, record in manifest.modules.items()}
    source = manifest.source and replace(manifest.source, crc32=0, bytes=manifest.source.bytes or 2**63)
    widest = replace(manifest, modules=modules, checksums=dict.fromkeys(tensors, 0), source=source)
    return len(build_header(tensors, file_metadata(widest)))


def read_manifest(header: Header) -> Manifest:
    """Parse and check the manifest of one file by itself; `open_checkpoint` checks it against the tensors.

    Raises:
        CheckpointError: no manifest (a float or foreign file), a newer format, or not a manifest.
    """
    path = shown(header.path)
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: not written by w8a16 (no manifest in the header): a float or foreign checkpoint; "
            "load it into the float model and call w8a16.quantize(model)"
        )
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the manifest cannot be understood: {error!r}") from error
    try:
        return manifest_from_data(data)
    except CheckpointError as error:
        raise error.at(path) from error


def manifest_from_data(data: Any) -> Manifest:
    """Check what `manifest_to_data` gave.

    Raises:
        CheckpointError: a newer format, or not a manifest.
    """
    try:
        version = data["format_version"]
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"written by a newer w8a16 (format {version}; this one reads up to {FORMAT_VERSION})"
            )
        return _manifest_from_dict(data)
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"the manifest cannot be understood: {error!r}") from error


def _manifest_from_dict(data: dict[str, Any]) -> Manifest:
    version = data["format_version"]
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version {version!r}")
    if data["format"] != "w8a16":
        raise ValueError(f"format {data['format']!r}")
    hidden = [str(name) for name in data["non_persistent_buffers"]]
    if len(set(hidden)) < len(hidden):
        raise ValueError("non_persistent_buffers names a buffer twice")
    parts = Manifest(
        modules={name: _record_from_dict(record) for name, record in data["modules"].items()},
        kept_float={str(name): str(reason) for name, reason in data["kept_float"].items()},
        ties={str(alias): str(name) for alias, name in data["ties"].items()},
        non_persistent_buffers=tuple(hidden),
    )
    if version == 1:
        name = data.get("source")
        return replace(parts, source=None if name is None else Source(str(name)), version=1)
    if data["origin"] not in ORIGINS:
        raise ValueError(f"origin {data['origin']!r}; known: {', '.join(ORIGINS)}")
    return replace(
        parts,
        checksums={str(key): _crc_from_text(text) for key, text in data["checksums"].items()},
        source=_source_from_dict(data["source"]),
        origin=data["origin"],
    )


def _record_to_dict(record: ModuleRecord) -> dict[str, Any]:
    weights = {name: _weight_to_dict(weight) for name, weight in record.weights.items()}
    dtype = str(record.weight_dtype).removeprefix("torch.")
    return {"kind": record.kind, "weight_dtype": dtype, "weights": weights}


def _weight_to_dict(weight: WeightRecord) -> dict[str, Any]:
    """Shape of the codes, of the layout what is not the usual `[N, ...]`, and what is known of the error."""
    usual = asdict(Layout())
    data: dict[str, Any] = {"shape": list(weight.shape)}
    data |= {name: value for name, value in asdict(weight.layout).items() if value != usual[name]}
    if weight.sqnr_db is not None:
        data["sqnr_db"] = round(max(-_LARGEST_SQNR, min(weight.sqnr_db, _LARGEST_SQNR)), 2)
    if weight.largest_error is not None:
        data["largest_error"] = round(max(0.0, min(weight.largest_error, _LARGEST_ERROR)), 6)
    return data


def _widest(record: ModuleRecord) -> ModuleRecord:
    weights = {
        name: replace(weight, sqnr_db=-_LARGEST_SQNR, largest_error=_LARGEST_ERROR)
        for name, weight in record.weights.items()
    }
    return replace(record, weights=weights)


def _source_to_dict(source: Source | None) -> dict[str, Any] | None:
    if source is None:
        return None
    crc = None if source.crc32 is None else f"{source.crc32:08x}"
    return {"name": source.name, "file": source.file, "bytes": source.bytes, "crc32": crc}


def _record_from_dict(data: dict[str, Any]) -> ModuleRecord:
    kind = kind_named(data["kind"])
    if kind is None:
        raise ValueError(f"unknown layer kind {data['kind']!r}")
    weights = {str(name): _weight_from_dict(weight) for name, weight in data["weights"].items()}
    if not weights:
        raise ValueError("a module without weights")
    if finer := [name for name, weight in weights.items() if weight.layout.refinement and not kind.refinable]:
        raise ValueError(f"{finer} of the kind {kind.name}: {weights[finer[0]].layout}")
    if unusable := [name for name in weights if not name or "." in name]:
        raise ValueError(f"weights named {unusable}")
    return ModuleRecord(data["kind"], _DTYPES[data["weight_dtype"]], weights)


def _weight_from_dict(data: dict[str, Any]) -> WeightRecord:
    shape = tuple(data["shape"])
    figures = {name: _figure(data, name) for name in ("sqnr_db", "largest_error")}
    layout = Layout(**{name: value for name, value in data.items() if name not in {"shape", *figures}})
    numbers = (*shape, layout.lead, layout.groups, layout.group, layout.outliers)
    if not all(type(number) is int and number >= 0 for number in numbers) or layout.groups < 1:
        raise ValueError(f"shape {list(shape)}, {layout}")
    if not 1 <= layout.lead < len(shape) or type(layout.swapped) is not bool:
        raise ValueError(f"shape {list(shape)}, {layout}")
    if layout.groups > 1 and not (layout.swapped and layout.lead == 1 and shape[0] % layout.groups == 0):
        raise ValueError(f"shape {list(shape)}, {layout}")
    if layout.group and (layout.lead != 2 or len(shape) != 3 or shape[2] != layout.group):
        raise ValueError(f"shape {list(shape)}, {layout}")
    if layout.refinement and (problem := layout.why_not(layout.float_shape(shape))):
        raise ValueError(f"shape {list(shape)}, {layout}: {problem}")
    return WeightRecord(layout, shape, **figures)


def _figure(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise ValueError(f"{name} {value!r}")
    return math.inf if name == "sqnr_db" and value >= _LARGEST_SQNR else float(value)


def _source_from_dict(data: dict[str, Any] | None) -> Source | None:
    if data is None:
        return None
    name, file, size, crc = (data[key] for key in ("name", "file", "bytes", "crc32"))
    if not all(text is None or type(text) is str for text in (name, file)):
        raise ValueError(f"source {data!r}")
    if size is not None and not (type(size) is int and size >= 0):
        raise ValueError(f"source {data!r}")
    return Source(name, file, size, None if crc is None else _crc_from_text(crc))


def _crc_from_text(text: str) -> int:
    if not re.fullmatch("[0-9a-f]{8}", text):
        raise ValueError(f"checksum {text!r}: expected 8 lower-case hexadecimal digits")
    return int(text, 16)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
