"""A missing, wrong or forced library: reasons where the choice is automatic, errors where it is explicit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import w8a16
from w8a16.errors import BackendError
from w8a16.kernels import cpu
from w8a16.kernels.cpu import library, structures, torch_functions
from w8a16.kernels.cpu.variants import use_variant

PROGRAM = """
import torch, w8a16
from w8a16.kernels import decide
layer = w8a16.W8A16LinearLayer(64, 8).quantize(torch.randn(8, 64))
y = layer(torch.ones(2, 64))
print(decide("cpu")[0].accepted, decide("cpu")[0].reason)
"""


def run(program=PROGRAM, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_the_variants_are_listed_with_reasons_and_the_last_always_runs():
    found = cpu.variants()
    assert len({v.name for v in found}) == len(found)
    assert found[-1].reason is None
    first = next(v.name for v in found if v.reason is None)
    assert cpu.chosen_variant() == os.environ.get("W8A16_CPU_ISA", first)


@pytest.mark.parametrize("name", [v.name for v in cpu.variants()] if cpu.problem() is None else [])
def test_each_variant_can_be_forced_or_says_why_not(name):
    reason = {v.name: v.reason for v in cpu.variants()}[name]
    result = run(W8A16_CPU_ISA=name)
    if reason is None:
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"True runs on cpu, {name}, on ")
    else:
        assert result.returncode != 0
        assert f"BackendError: W8A16_CPU_ISA={name}: {reason}" in result.stderr


def test_an_unknown_variant_is_an_error_that_lists_the_known_ones():
    result = run(W8A16_CPU_ISA="sse9")
    assert result.returncode != 0
    names = ", ".join(v.name for v in cpu.variants())
    assert f"BackendError: W8A16_CPU_ISA=sse9: expected one of {names}" in result.stderr


def test_use_variant_refuses_what_it_does_not_know_and_restores():
    before = cpu.chosen_variant()
    with pytest.raises(BackendError, match=r"^use_variant\('sse9'\): expected one of "), use_variant("sse9"):
        pass
    with use_variant(cpu.variants()[-1].name):
        assert cpu.chosen_variant() == cpu.variants()[-1].name
    assert cpu.chosen_variant() == before


@pytest.fixture
def _reopened(monkeypatch):
    library._open.cache_clear()
    yield
    monkeypatch.undo()
    library._open.cache_clear()
    assert library.problem() is None


@pytest.mark.usefixtures("_reopened")
def test_a_library_that_was_not_built(monkeypatch):
    monkeypatch.setattr(library, "FILE_NAME", "libnothing.so")
    assert library.problem().startswith(
        "libnothing.so was not built: install from source with a C++17 compiler"
    )
    with pytest.raises(BackendError, match=r"^the native kernels cannot run: libnothing.so was not built"):
        library.native()


@pytest.mark.usefixtures("_reopened")
def test_a_library_that_cannot_be_opened(monkeypatch):
    path = Path(library.__file__).parent / "lib" / "libbroken-for-a-test.so"
    path.write_bytes(b"not a library")
    try:
        monkeypatch.setattr(library, "FILE_NAME", path.name)
        assert library.problem().startswith(f"{path.name} cannot be opened: ")
    finally:
        path.unlink()


@pytest.mark.usefixtures("_reopened")
def test_a_library_of_another_version(monkeypatch):
    monkeypatch.setattr(library, "INTERFACE_VERSION", 999)
    found = structures.INTERFACE_VERSION
    assert library.problem() == f"{library.FILE_NAME} has interface {found}, this w8a16 needs 999: rebuild it"


def test_without_the_library_all_runs_on_the_reference(tmp_path):
    package = tmp_path / "w8a16"
    shutil.copytree(Path(w8a16.__file__).parent, package, ignore=shutil.ignore_patterns("lib", "csrc"))
    result = run(PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("False ")
    assert "was not built" in result.stdout
    forced = run(PYTHONPATH=str(tmp_path), W8A16_BACKEND="cpu-native")
    assert forced.returncode != 0
    assert "BackendError: no backend can run on cpu (W8A16_BACKEND=cpu-native): cpu-native: " in forced.stderr


OTHER_THREADS = """
from w8a16.kernels.cpu import torch_functions
torch_functions._TORCH_THREADS = ("absent",)
{more}
import threading, torch
from w8a16.kernels import linear
x, q, s = torch.randn(5, 1000), torch.randint(-127, 128, (600, 1000), dtype=torch.int8), torch.rand(600)
results = []
for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    results.append(linear(x, q, s, None))
workers = [threading.Thread(target=lambda: results.append(linear(x, q, s, None))) for _ in range(4)]
[w.start() for w in workers]; [w.join() for w in workers]
assert len(results) == 7 and all(torch.equal(r, results[0]) for r in results) and results[0].norm() > 0
print(torch_functions.threads_note())
"""


def test_a_torch_without_threads_to_lend():
    result = run(OTHER_THREADS.format(more='torch_functions._OPENMP = ("absent",)'))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("on one thread, for torch ")


def test_an_older_torch_lends_its_openmp_threads():
    if torch_functions._table(torch_functions._OPENMP) is None:
        pytest.skip("this torch does not run on GNU's OpenMP")
    result = run(OTHER_THREADS.format(more=""))
    assert (result.returncode, result.stdout) == (0, "on torch's OpenMP threads\n"), result.stderr


def test_a_torch_without_the_dispatcher_interface(monkeypatch):
    monkeypatch.setattr(torch_functions, "_DISPATCHER", (*torch_functions._DISPATCHER, "absent"))
    assert library.register_ops() is False


def test_loading_does_not_flush_subnormals():
    program = "from w8a16.kernels import cpu; print(cpu.problem(), 5e-324 != 0)"
    assert run(program).stdout == "None True\n"
