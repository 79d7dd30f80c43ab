"""Peak memory does not depend on the size of a tensor, of a shard, or on their number."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
MIB = 1 << 20

CODE = """
import sys
from pathlib import Path
from w8a16.checkpoint import open_shards
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.streaming import plan_checkpoint

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def quantize(source, target):
    Path(target).mkdir()
    shards = open_shards(source)
    plan_checkpoint(shards, skeleton_from_names(shards)).run(Path(target), threads=2)

small, large, target = sys.argv[1:]
quantize(small, target + "-small")  # first uses import and allocate things of their own
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts again from here
before = status("VmRSS")
quantize(large, target)
print(status("VmHWM") - before)
"""


def sparse_checkpoint(folder, shapes, shards=1):
    """Zeros of bfloat16 that take no room on the disk: in each shard one tensor of each shape."""
    folder.mkdir()
    weight_map = {}
    for number in range(shards):
        header, offset = {}, 0
        for i, shape in enumerate(shapes):
            size = 2 * shape[0] * shape[1]
            name = f"{number}.{i}.weight"
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
            weight_map[name] = f"{number:05}.safetensors"
            offset += size
        text = json.dumps(header).encode()
        with (folder / f"{number:05}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + offset)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def peak(folder, *checkpoint):
    small = sparse_checkpoint(folder / "warm", [[64, 64], [2, 4 * MIB]])
    large = sparse_checkpoint(folder / "large", *checkpoint)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(small), str(large), str(folder / "int8")],
        capture_output=True,
        text=True,
        timeout=900,
    )
    if "PermissionError" in done.stderr:
        pytest.skip("the peak cannot be reset here")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_one_large_tensor(tmp_path):
    """300 MB: the threads take a few blocks of 4 MiB each."""
    assert peak(tmp_path, [[36_000, 4096]]) < 40 * MIB


def test_one_long_row(tmp_path):
    assert peak(tmp_path, [[2, 64 * MIB]]) < 120 * MIB


def test_flat_as_shards_are_added(tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    of_few = peak(few, [[1000, 512]] * 4, 5)
    of_many = peak(many, [[1000, 512]] * 4, 40)
    assert of_many < of_few + 16 * MIB


@pytest.mark.slow
def test_a_tensor_of_6_gib(tmp_path):
    assert peak(tmp_path, [[786_432, 4096]]) < 100 * MIB
