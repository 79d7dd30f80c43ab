"""Export and import work in blocks: their memory is that of the threads' buffers, not of the folder."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

transformers = pytest.importorskip("transformers")

CODE = """
import sys
from pathlib import Path
from w8a16.integrations.compressed_tensors import plan_export, write_export
from w8a16.integrations.foreign_int8 import plan_import, write_import

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

folder = Path(sys.argv[1])
plan_export(folder / "int8")  # first uses import and allocate things of their own
for plan, write, source, target in (
    (plan_export, write_export, "int8", "out"), (plan_import, write_import, "out", "back")
):
    (folder / target).mkdir()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    write(plan(folder / source), folder / target)
    print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_folder(tmp_path):
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16, "vocab_size": 64}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=4, num_key_value_heads=16)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    state = {key: torch.rand(1).expand(value.shape) for key, value in model.state_dict().items()}
    (tmp_path / "float").mkdir()
    save_file(
        {k: v.to(torch.bfloat16).contiguous() for k, v in state.items()},
        tmp_path / "float" / "model.safetensors",
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path / "float")
    for arguments in (
        ["-m", "w8a16", "quantize", tmp_path / "float", tmp_path / "int8"],
        ["-c", CODE, tmp_path],
    ):
        result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    peaks = [int(line) for line in result.stdout.split()]
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    threads = min(16, os.cpu_count() or 1)
    assert len(peaks) == 2
    assert size > 250e6
    assert max(peaks) < 40e6 + threads * 12e6 < size
