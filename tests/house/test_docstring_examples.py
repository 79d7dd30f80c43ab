"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch
from torch import nn

import w8a16

MODULES = [name for _, name, _ in pkgutil.walk_packages(w8a16.__path__, "w8a16.") if name != "w8a16.__main__"]


def run(name: str) -> doctest.TestResults:
    module = importlib.import_module(name)
    names = {"torch": torch, "nn": nn, **vars(module)}
    return doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert run(name).failed == 0


def test_there_are_examples() -> None:
    assert sum(run(name).attempted for name in MODULES) >= 15
