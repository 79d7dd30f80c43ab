"""The public surface is pinned: a change to it is a decision, not an accident."""

from __future__ import annotations

import importlib.metadata
import inspect

import w8a16
from w8a16.layers import KINDS


def test_exports_are_pinned() -> None:
    assert w8a16.__all__ == [
        "Plan",
        "Recipe",
        "W8A16Error",
        "W8A16LinearLayer",
        "compare",
        "dequantize",
        "from_pretrained",
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
    selection = "'model', 'include', 'exclude', 'strict', 'kinds'"
    assert names(w8a16.plan) == f"[{selection}, 'recipe']"
    assert names(w8a16.quantize) == f"[{selection}, 'on_nonfinite', 'recipe', 'progress']"
    assert names(w8a16.save) == "['model', 'path', 'source', 'executed']"
    compared = "'reference', 'quantized', 'inputs', 'task', 'weights', 'sensitivity', 'layers_to_try'"
    assert names(w8a16.compare) == f"[{compared}, 'activation_bytes', 'progress']"
    assert names(w8a16.load) == "['model', 'path', 'device', 'mmap']"


def test_only_the_choice_of_weights_is_positional() -> None:
    for verb in (w8a16.plan, w8a16.quantize):
        kinds = [parameter.kind for parameter in inspect.signature(verb).parameters.values()]
        assert kinds[:4] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 4
        assert set(kinds[4:]) == {inspect.Parameter.KEYWORD_ONLY}


def test_the_names_of_the_layer_kinds_are_pinned() -> None:
    """Files record them: one that is gone or means something else makes existing files unreadable."""
    assert {kind.name for kind in KINDS} >= {
        "linear",
        "transposed_linear",
        "embedding",
        "embedding_bag",
        "parameter",
    }


def test_version_agrees_with_the_package() -> None:
    assert w8a16.__version__ == importlib.metadata.version("w8a16")


def test_every_public_name_has_a_docstring() -> None:
    assert all(inspect.getdoc(getattr(w8a16, name)) for name in w8a16.__all__)
