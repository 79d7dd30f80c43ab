"""Entries for classes of transformers and diffusers, as data: a class name and a tiny configuration."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from zoo.entry import Entry, Inputs, Tolerance


def transformer(
    name: str,
    family: str,
    class_name: str,
    inputs: Callable[[], Inputs],
    *,
    generate: bool = False,
    transformer_like: bool = True,
    published: bool | dict[str, Any] = True,
    tolerance: Tolerance | None = None,
    note: str = "",
    **config: Any,
) -> Entry:
    """An entry for the model class `class_name` of transformers, with `config` over its defaults.

    The published size is the default configuration of the class, completed by the values of
    `published` where it does not stand alone; False where that is no size anyone uses.
    """

    def model_class() -> Any:
        return getattr(importlib.import_module("transformers"), class_name)

    def build() -> nn.Module:
        return model_class()(model_class().config_class(**config))

    def build_published() -> nn.Module:
        return model_class()(model_class().config_class(**(published if isinstance(published, dict) else {})))

    return Entry(
        name,
        family,
        build,
        inputs,
        generate=generate,
        transformer_like=transformer_like,
        published=build_published if published is not False else None,
        tolerance=tolerance,
        note=note,
    )


def diffuser(
    name: str,
    class_name: str,
    inputs: Callable[[], Inputs],
    *,
    transformer_like: bool = False,
    published: bool | dict[str, Any] = True,
    note: str = "",
    **config: Any,
) -> Entry:
    """An entry for the model class `class_name` of diffusers; `published` is as in `transformer`."""
    completed = published if isinstance(published, dict) else {}

    def model_class() -> Any:
        return getattr(importlib.import_module("diffusers"), class_name)

    return Entry(
        name,
        "diffusion",
        lambda: model_class()(**config),
        inputs,
        transformer_like=transformer_like,
        published=(lambda: model_class()(**completed)) if published is not False else None,
        note=note,
    )
