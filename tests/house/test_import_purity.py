"""`import w8a16` is quiet: no warnings, output, file writes, CUDA context, or optional libraries."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROBE = """
import sys
writes = []
def audit(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        writes.append(str(arguments[0]))
sys.dont_write_bytecode = True
import torch                      # what torch itself does at import is not ours to answer for
before = set(sys.modules)
sys.addaudithook(audit)
{statement}
forbidden = {{"triton", "transformers", "diffusers", "numpy.testing", "typer", "rich", "safetensors",
             "matplotlib", "huggingface_hub", "torch._dynamo", "torch._inductor"}}
loaded = (set(sys.modules) - before) & forbidden
assert not loaded, f"loaded {{sorted(loaded)}}"
assert not writes, f"wrote {{writes}}"
assert not torch.cuda.is_initialized(), "made a CUDA context"
assert 5e-324 != 0.0, "subnormals are flushed to zero"
"""


def run(statement: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(PROBE).format(statement=statement)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )


def test_import_is_pure() -> None:
    result = run("import w8a16")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("import safetensors", "loaded ['safetensors']"),
        (
            "import tempfile; tempfile.TemporaryFile('w', dir='.').close(); open('/dev/null', 'w').close()",
            "wrote",
        ),
        ("import warnings; warnings.warn('hello')", "UserWarning: hello"),
    ],
)
def test_the_probe_finds_impurity(statement: str, complaint: str) -> None:
    result = run(statement)
    assert result.returncode != 0
    assert complaint in result.stderr
