"""The zoo is run from the root of the repository; its modules are no part of the installed package."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))


@pytest.fixture(autouse=True)
def _one_thread():
    """On tensors of this size threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
