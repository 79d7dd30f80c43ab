"""What `save_pretrained` writes: each tensor once, and the manifest beside it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from w8a16.checkpoint import Manifest, file_metadata
from w8a16.checkpoint.container.crc import crc32
from w8a16.checkpoint.contents import Contents, contents_of
from w8a16.checkpoint.opened import SAVED_BY
from w8a16.checkpoint.tensors import bytes_of, refuse_unstorable
from w8a16.errors import UsageError


def manifest_of(model: nn.Module, reasons: Mapping[str, str]) -> Manifest:
    """What was done to each module of a quantized model.

    Args:
        model: a model with int8 modules.
        reasons: why weights stayed float, where that is known; else it is worked out.
    """
    return _manifest(contents_of(model), {}, reasons)


def what_to_store(
    model: nn.Module, reasons: Mapping[str, str]
) -> tuple[dict[str, Tensor], Manifest, dict[str, str]]:
    """The tensors of the state dict without second names, the manifest, and the metadata of the file.

    Raises:
        UsageError: parts of the model are on the disk.
        CheckpointError: a tensor cannot be stored.
    """
    contents = contents_of(model)
    state = {key: tensor for key, tensor in contents.tensors.items() if key not in contents.hidden}
    away = [key for key, tensor in state.items() if tensor.is_meta]
    if away:
        raise UsageError(
            f"{len(away)} tensors are offloaded, so this model cannot be saved; copy the folder that it was "
            "loaded from, or load it without offloading"
        )
    refuse_unstorable(state)
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    checksums = {key: crc32(bytes_of(tensor)) for key, tensor in plain.items()}
    manifest = _manifest(contents, checksums, reasons)
    return plain, _manifest(contents, {}, reasons), {**file_metadata(manifest), SAVED_BY: "save_pretrained"}


def _manifest(contents: Contents, checksums: dict[str, int], reasons: Mapping[str, str]) -> Manifest:
    hidden = set(contents.hidden)
    ties = {alias: name for alias, name in contents.ties.items() if not hidden & {alias, name}}
    kept = {name: reasons.get(name, reason) for name, reason in contents.kept_float.items()}
    return Manifest(contents.modules, kept, ties, checksums=checksums)
