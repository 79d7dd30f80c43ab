"""Was an int8 folder made from a float folder? Every tensor of both is read once, in small blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from w8a16.checkpoint import Checkpoint, shown
from w8a16.checkpoint.streaming.manifests import codes_key
from w8a16.checkpoint.verification import Finding, verify_checkpoint
from w8a16.errors import CheckpointError
from w8a16.integrations.folder_pair import FolderPair

_SHOWN = 3


def check_pair(pair: FolderPair, progress: Callable[[int, int], None]) -> tuple[str, ...]:
    """Compare every int8 weight with its float weight, and all other tensors to the bit.

    Args:
        pair: from `open_pair`.
        progress: called with the bytes done and the bytes in all.

    Returns:
        What differs, or could not be compared, in whole sentences; nothing where all is well.

    Raises:
        CheckpointError: most int8 weights are not those of the float folder.
        ResourceError: a file cannot be read, or was changed meanwhile.
    """
    report = verify_checkpoint(pair.checkpoint, pair.original, progress)
    int8 = _codes(pair.checkpoint)
    off = [finding for finding in report.findings if finding.tensor in int8]
    if len({finding.tensor for finding in off}) * 2 > len(int8):
        raise CheckpointError(
            f"{shown(pair.int8_folder)}: was not made from {shown(pair.float_folder)}: {len(off)} of its "
            f"{len(int8)} int8 weights are those of another model ({_said(off[0])})"
            f"{_source_name(pair.checkpoint)}; pass the float folder that it was made from"
        )
    others = [finding for finding in report.findings if finding.tensor not in int8]
    missing = [f"{shown(name)} ({shown(why)})" for name, why in report.not_compared.items()]
    return (
        *_sentence(
            "int8 weight is not that of FLOAT", "int8 weights are not those of FLOAT", map(_said, off)
        ),
        *_sentence("tensor is not as in FLOAT", "tensors are not as in FLOAT", map(_said, others)),
        *_sentence("tensor could not be checked", "tensors could not be checked", missing),
    )


def _codes(checkpoint: Checkpoint) -> set[str]:
    """The stored keys of all int8 weights."""
    manifest = checkpoint.manifest
    keys = {codes_key(path, name) for path, record in manifest.modules.items() for name in record.weights}
    return {manifest.ties.get(key, key) for key in keys}


def _source_name(checkpoint: Checkpoint) -> str:
    source = checkpoint.manifest.source
    return f"; it says that it was made from {shown(source.name)}" if source and source.name else ""


def _said(finding: Finding) -> str:
    return f"{shown(finding.tensor)}: {shown(finding.problem)}"


def _sentence(one: str, several: str, each: Iterable[str]) -> list[str]:
    listed = list(each)
    if not listed:
        return []
    more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    what = f"{len(listed)} {one if len(listed) == 1 else several}"
    return [f"{what}: {'; '.join(listed[:_SHOWN])}{more}."]
