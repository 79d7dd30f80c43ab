"""Save a quantized model: one safetensors file with the manifest in its header."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from w8a16.checkpoint.container.printable import as_resource_error
from w8a16.checkpoint.contents import contents_of
from w8a16.checkpoint.records import Manifest, Source
from w8a16.checkpoint.tensors import refuse_unstorable, write_file
from w8a16.convert import Plan
from w8a16.errors import CheckpointError

FILE_NAME = "model.safetensors"


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    source: str | None = None,
    executed: Plan | None = None,
) -> Path:
    """Write the quantized model as plain safetensors, tied tensors once, and return the file's path.

    Args:
        model: a model with at least one int8 module.
        path: a file name ending in `.safetensors`, or a folder (made if needed) that gets a
            `model.safetensors`. An existing file is replaced, at the very end.
        source: where the float weights came from; noted in the manifest.
        executed: the plan that was carried out, for the reasons in the manifest; without it the
            reasons are worked out from the model.

    Raises:
        CheckpointError: nothing in the model is int8, or a tensor cannot be stored.
        ResourceError: the disk is full or not writable.

    Example:
        >>> save(quantize(nn.Sequential(nn.Linear(64, 256))), "model-int8")  # doctest: +SKIP
        PosixPath('model-int8/model.safetensors')
    """
    target = _target(path)
    contents = contents_of(model, executed)
    if not contents.modules:
        raise CheckpointError(
            "the model has no int8 module: call w8a16.quantize(model) before saving; "
            "print(w8a16.plan(model)) says what it can convert"
        )
    refuse_unstorable(contents.tensors)
    manifest = Manifest(
        modules=contents.modules,
        kept_float=contents.kept_float,
        ties=contents.ties,
        non_persistent_buffers=contents.hidden,
        source=None if source is None else Source(source),
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(target.parent, error) from error
    write_file(target, contents.tensors, manifest)
    return target


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    return target if target.suffix == ".safetensors" else target / FILE_NAME
