"""These tests need the native library; `make test` builds it wherever there is a C++ compiler."""

import pytest

from w8a16.kernels import cpu


@pytest.fixture(autouse=True)
def _needs_the_library():
    if (reason := cpu.problem()) is not None:
        pytest.skip(reason)
