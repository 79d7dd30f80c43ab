"""Which files of a hub repository a quantizer reads: each weight once, and what describes the model.

Repositories hold the same weights several times: in other precisions (`model.fp16.safetensors`), as
pickles, as one file for other programs. Names alone decide, before anything is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

WEIGHTS = ".safetensors"
_TEXT = {".json", ".txt", ".md", ".model", ".jinja", ".tiktoken", ".vocab", ".spm", ".bpe"}
_TEXT_NAMES = {"LICENSE", "NOTICE"}
_PIPELINE = "model_index.json"
_STANDARD = ("model", "diffusion_pytorch_model")

# STEM[.VARIANT][-00001-of-00004][.VARIANT].safetensors; the second place is that of older diffusers.
_WEIGHT_NAME = re.compile(
    r"(?P<stem>.+?)(?:\.(?P<variant>\w+))?(?P<part>-\d{5}-of-\d{5})?(?:\.(?P<late_variant>\w+))?\.safetensors"
)
_INDEX_NAME = re.compile(r"(?P<stem>.+?)\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
_PART = re.compile(
    r"(?P<before>.*-)(?P<number>\d{5})(?P<middle>-of-)(?P<count>\d{5})(?P<after>.*\.safetensors)"
)


def choose(names: Iterable[str]) -> list[str]:
    """The files to download, of all file names of a repository, in their order.

    Weights in safetensors with their indexes, json, tokenizer and text files. Never code or pickles, hidden
    files, a variant (`model.fp16.safetensors`) beside the weights without one, single-file copies beside a
    diffusers pipeline, or `consolidated*` weights beside those of the model's classes.
    """
    known = [PurePosixPath(name) for name in names]
    plain = {(path.parent, stem) for path in known for stem, variant in [_stem(path)] if stem and not variant}
    is_pipeline = PurePosixPath(_PIPELINE) in known
    return [str(path) for path in known if _readable(path) and not _is_second_copy(path, plain, is_pipeline)]


def missing_parts(names: Sequence[str]) -> list[str]:
    """The weight files `X-00002-of-00004.safetensors` that belong to one of `names` and are not there."""
    present = set(names)
    wanted: dict[str, None] = {}
    for name in names:
        match = _PART.fullmatch(name)
        for number in range(1, int(match["count"]) + 1) if match else ():
            assert match is not None
            wanted[f"{match['before']}{number:05}{match['middle']}{match['count']}{match['after']}"] = None
    return [name for name in wanted if name not in present]


def _readable(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and (path.suffix in {WEIGHTS, *_TEXT} or path.name in _TEXT_NAMES)


def _is_second_copy(path: PurePosixPath, plain: set[tuple[PurePosixPath, str]], is_pipeline: bool) -> bool:
    stem, variant = _stem(path)
    if not stem:
        return False
    if is_pipeline and len(path.parts) == 1:
        return True
    if variant and (path.parent, stem) in plain:
        return True
    standard = any((path.parent, name) in plain for name in _STANDARD)
    return standard and stem.startswith("consolidated")


def _stem(path: PurePosixPath) -> tuple[str, str]:
    """The name of a weight file or index without variant, part and ending; and its variant. Else empty."""
    match = _INDEX_NAME.fullmatch(path.name)
    if match:
        return match["stem"], match["variant"] or ""
    match = _WEIGHT_NAME.fullmatch(path.name)
    if match:
        return match["stem"], match["variant"] or match["late_variant"] or ""
    return "", ""
