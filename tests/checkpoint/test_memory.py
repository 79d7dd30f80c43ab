"""Loading a skeleton needs the memory of the int8 model, never that of the float weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import w8a16
from support.files import on_meta
from support.twins import mlp
from w8a16 import W8A16LinearLayer


class LargestFloat(TorchDispatchMode):
    """Sees every operator, and keeps the bytes of the largest float result that has memory."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.is_meta:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


def test_no_float_weight_is_ever_made(tmp_path):
    file = w8a16.save(w8a16.quantize(mlp(256, 512, 256)), tmp_path)
    skeleton = on_meta(lambda: mlp(256, 512, 256))
    with LargestFloat() as seen:
        loaded = w8a16.load(skeleton, file)
    assert seen.bytes == 512 * 4  # the scales and the bias of the wide layer
    with LargestFloat() as seen:
        assert loaded[0].weight.shape == (512, 256)
    assert seen.bytes == 0  # only its values are made, and only where they are asked for
    with LargestFloat() as seen:
        loaded[0].weight.sum()
    assert seen.bytes == 512 * 256 * 4  # the measurement sees a float weight where there is one


CODE = """
import sys, torch, w8a16
from torch import nn

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

with torch.device("meta"):
    model = nn.Sequential(*[nn.Linear(2560, 2560) for _ in range(8)])
w8a16.load(nn.Linear(2, 64), sys.argv[2])  # first uses import and allocate things of their own
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts again from here
before = status("VmRSS")
w8a16.load(model, sys.argv[1])
print(status("VmHWM") - before, len([b for b in model.buffers() if b.dtype == torch.int8]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_of_the_process(tmp_path):
    """210 MB of float weights, 52 MB of codes: the peak is close to the latter.

    In a process of its own, and by the peak that Linux keeps for it (ru_maxrss would be inherited).
    """
    model = torch.nn.Sequential(*[W8A16LinearLayer(2560, 2560) for _ in range(8)])
    big, small = w8a16.save(model, tmp_path), w8a16.save(W8A16LinearLayer(2, 64), tmp_path / "small")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(big), str(small)], capture_output=True, text=True, timeout=120
    )
    if "PermissionError" in done.stderr:
        pytest.skip("the peak cannot be reset here")
    assert done.returncode == 0, done.stderr
    growth, layers = map(int, done.stdout.split())
    codes = 8 * 2560 * 2560
    assert layers == 8
    assert 0.8 * codes < growth < 1.8 * codes
