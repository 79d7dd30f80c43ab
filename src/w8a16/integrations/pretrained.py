"""`w8a16.from_pretrained`: the short way to an int8 model of transformers; imports it when it is called."""

from __future__ import annotations

import os
from typing import Any


def from_pretrained(name: str | os.PathLike[str], *arguments: Any, **options: Any) -> Any:
    """Load a model of transformers with int8 weights; a float one is quantized while it is read.

    Args:
        name: a folder, float or int8, or a hub id.
        arguments: for transformers' `from_pretrained`.
        options: `include`, `exclude`, `kinds`, `recipe`, `strict` and `on_nonfinite` as for
            `w8a16.quantize`; `model_class`, by default the class that the config names; and those of
            transformers' `from_pretrained`: `dtype`, `device_map`, `revision` and so on.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: another quantization method, or rules for weights that are int8 already.
        PatternError, CoverageError, WeightValueError: as `w8a16.quantize`.
    """
    from w8a16.integrations import transformers

    load: Any = transformers.from_pretrained  # found when it is asked for
    return load(name, *arguments, **options)
