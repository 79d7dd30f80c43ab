"""The public surface is pinned: a change to it is a decision, not an accident."""

from __future__ import annotations

import importlib.metadata
import inspect

import w8a16


def test_exports_are_pinned() -> None:
    assert w8a16.__all__ == [
        "Plan",
        "W8A16Error",
        "W8A16LinearLayer",
        "dequantize",
        "load",
        "plan",
        "quantize",
        "save",
        "w8_a16_forward",
    ]
    assert all(hasattr(w8a16, name) for name in w8a16.__all__)


def test_signatures_are_pinned() -> None:
    def names(function: object) -> str:
        return str(list(inspect.signature(function).parameters))

    assert names(w8a16.w8_a16_forward) == "['weight', 'input', 'scales', 'bias']"
    assert names(w8a16.W8A16LinearLayer) == "['in_features', 'out_features', 'bias', 'device', 'dtype']"
    assert names(w8a16.W8A16LinearLayer.quantize) == "['self', 'weights']"
    assert names(w8a16.plan) == "['model', 'include', 'exclude', 'strict']"
    assert names(w8a16.quantize) == "['model', 'include', 'exclude', 'strict', 'on_nonfinite', 'progress']"
    assert names(w8a16.save) == "['model', 'path', 'source', 'executed']"
    assert names(w8a16.load) == "['model', 'path', 'device']"


def test_version_agrees_with_the_package() -> None:
    assert w8a16.__version__ == importlib.metadata.version("w8a16")


def test_every_public_name_has_a_docstring() -> None:
    assert all(inspect.getdoc(getattr(w8a16, name)) for name in w8a16.__all__)
