"""Numeric tests run on every backend and instruction set that this machine has, one after the other."""

import pytest

from w8a16.kernels import cpu
from w8a16.kernels.cpu.variants import use_variant

NATIVE = [] if cpu.problem() else [v.name for v in cpu.variants() if v.reason is None]


def pytest_generate_tests(metafunc):
    for marker, names in (("every_backend", ["reference", *NATIVE]), ("every_variant", NATIVE)):
        if metafunc.definition.get_closest_marker(marker):
            metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture(autouse=True)
def backend(request, monkeypatch):
    """The backend of the test: the default one, or each in turn for marked tests."""
    name = getattr(request, "param", None)
    if name is None:
        yield
    elif name == "reference":
        monkeypatch.setenv("W8A16_BACKEND", "reference")
        yield
    else:
        monkeypatch.setenv("W8A16_BACKEND", "cpu-native")
        with use_variant(name):
            yield
