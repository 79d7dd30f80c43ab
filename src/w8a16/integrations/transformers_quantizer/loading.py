"""`from_pretrained` in one call, for float and for int8 folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import transformers

from w8a16.convert import Recipe
from w8a16.convert.select import Patterns
from w8a16.errors import UsageError
from w8a16.integrations.transformers_quantizer.config import W8A16Config

_OTHERS = ("load_in_8bit", "load_in_4bit", "quantization_config", "gguf_file")


def from_pretrained(
    name: str | os.PathLike[str],
    *arguments: Any,
    model_class: Any = None,
    include: Patterns = None,
    exclude: Patterns = None,
    kinds: str | Sequence[str] | None = None,
    recipe: Recipe | None = None,
    strict: bool = False,
    on_nonfinite: str = "error",
    **options: Any,
) -> Any:
    """Load a model of transformers with int8 weights: a float folder or hub id is quantized on the way.

    A folder that holds int8 weights (of `w8a16 quantize` or `save_pretrained`) is loaded as it is.

    Args:
        name: a folder or a hub id.
        arguments: for transformers' `from_pretrained`.
        model_class: the class to load; default: the one that the config names.
        include: names or globs to convert; default: every weight that can be int8.
        exclude: names or globs to spare; wins over `include`.
        kinds: names of the layer kinds to convert; default: all.
        recipe: instead of the three.
        strict: refuse to leave a float weight float, unless it was excluded.
        on_nonfinite: "error", or "keep-float" to leave weights with NaN or Inf as they are.
        options: for transformers' `from_pretrained`: `dtype`, `device_map`, `revision` and so on.

    Raises:
        UsageError: another quantization method, or rules for weights that are int8 already.
        PatternError, CoverageError, WeightValueError: as `w8a16.quantize`.
    """
    clash = [option for option in _OTHERS if options.get(option)]
    if clash:
        raise UsageError(f"{', '.join(clash)}: cannot be combined with int8 weights of w8a16")
    rules = W8A16Config(include, exclude, kinds, recipe=recipe, strict=strict, on_nonfinite=on_nonfinite)
    from w8a16.integrations.transformers_quantizer import register

    register()
    found = options.get("config")
    if found is None:
        hub = {key: options[key] for key in _HUB_OPTIONS if key in options}
        found = transformers.AutoConfig.from_pretrained(os.fspath(name), **hub)
    chosen = _class_named(found) if model_class is None else model_class
    if getattr(found, "quantization_config", None) is None:
        options["quantization_config"] = rules
    elif rules.to_dict() != W8A16Config().to_dict():
        raise UsageError(f"{os.fspath(name)}: its weights are quantized already; rules are for float weights")
    return chosen.from_pretrained(os.fspath(name), *arguments, **options)


_HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)


def _class_named(config: Any) -> Any:
    for architecture in config.architectures or ():
        found = getattr(transformers, architecture, None)
        if found is not None:
            return found
    raise UsageError(
        f"the config names no class of transformers {transformers.__version__} "
        f"(architectures: {config.architectures}); give model_class, e.g. transformers.AutoModel"
    )
