"""What the manifest says: checksums of what is stored and of the sources, and the error of each weight."""

import math
import zlib

import pytest
import torch
from torch import nn

from support.files import bits
from support.numerics import DTYPES, name_of
from support.streaming import in_turn, skeleton_of, stored_state, stream, tensors_in, write_checkpoint
from w8a16.checkpoint import open_checkpoint, open_shards
from w8a16.core import HALF_STEP_SLACK


class Model(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.linear = nn.Linear(40, 30, dtype=dtype)
        self.stack = nn.Parameter(torch.randn(3, 8, 40).to(dtype))
        self.turned = nn.ConvTranspose1d(9, 8, 4, dtype=dtype)
        self.exact = nn.Embedding(4, 40, dtype=dtype)
        self.norm = nn.LayerNorm(40)
        self.register_buffer("ids", torch.arange(5), persistent=False)
        self.register_buffer("empty", torch.empty(3, 0))
        with torch.no_grad():
            self.linear.weight[3] = 0
            self.exact.weight.copy_(torch.arange(40) - 127)


@pytest.fixture(params=[None, (512, 640), (64, 256)], ids=str)
def cut(request, cut_small):
    if request.param:
        cut_small(*request.param)


def streamed(folder, dtype=torch.float32, shards=3):
    torch.manual_seed(0)
    model = Model(dtype)
    state = stored_state(model)
    found = write_checkpoint(state, folder / "float", in_turn(state, shards) if shards > 1 else None)
    floats = {key: tensor.detach().clone() for key, tensor in state.items()}
    outcome = stream(found, skeleton_of(model), folder / "int8", threads=3)
    return floats, outcome


@pytest.mark.parametrize("shards", [1, 3])
def test_checksums(cut, shards, tmp_path):
    streamed(tmp_path, shards=shards)
    checkpoint = open_checkpoint(tmp_path / "int8")
    wanted = {key: zlib.crc32(bits(tensor)) for key, tensor in tensors_in(tmp_path / "int8").items()}
    assert "ids" in wanted
    assert checkpoint.manifest.checksums == wanted
    assert len(checkpoint.parts) == shards
    for header, part in zip(checkpoint.shards.headers, checkpoint.parts, strict=True):
        assert part.checksums.keys() == header.tensors.keys()
        content = (tmp_path / "float" / header.path.name).read_bytes()
        assert part.source.file == header.path.name
        assert (part.source.bytes, part.source.crc32) == (len(content), zlib.crc32(content))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_error_figures(cut, dtype, tmp_path):
    """Against the definition, in float64, from what was stored."""
    floats, outcome = streamed(tmp_path, dtype)
    manifest, stored = open_checkpoint(tmp_path / "int8").manifest, tensors_in(tmp_path / "int8")
    assert (outcome.zero_rows, outcome.underflow_rows) == (1, 0)
    for path, name, keys in [
        ("linear", "weight", "linear."),
        ("turned", "weight", "turned."),
        ("", "stack", "stack_"),
        ("exact", "weight", "exact."),
    ]:
        record = manifest.modules[path].weights[name]
        weight = floats[f"{path}.{name}" if path else name].double()
        weight = record.layout.codes_of(weight)
        codes, scales = stored[f"{keys}int8_weights"].double(), stored[f"{keys}scales"].double()
        scales = scales.view(*scales.shape, *[1] * (codes.dim() - scales.dim()))
        error = weight - codes * scales
        largest = float((2 * error.abs() / scales).max())
        assert 0 <= record.largest_error <= 1 + HALF_STEP_SLACK
        assert record.largest_error == pytest.approx(largest, abs=2**-15)
        if path == "exact":
            assert record.sqnr_db == math.inf or record.sqnr_db > 130
            continue
        sqnr = 10 * math.log10(float(weight.square().sum() / error.square().sum()))
        assert 35 < sqnr < 55
        assert record.sqnr_db == pytest.approx(sqnr, abs=0.006)


def test_rows_of_zeros_and_rows_too_small_are_counted(cut, tmp_path):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        layer = nn.Linear(40, 30, dtype=dtype)
        with torch.no_grad():
            layer.weight[[1, 7, 29]] = 0
            layer.weight[[2, 8]] = 1e-37 if dtype != torch.float64 else 1e-300
        shards = write_checkpoint(stored_state(layer), tmp_path / f"float-{dtype}")
        outcome = stream(shards, skeleton_of(layer), tmp_path / f"int8-{dtype}")
        assert (outcome.zero_rows, outcome.underflow_rows) == (3, 2)


def test_a_weight_of_zeros_has_lost_nothing(cut, tmp_path):
    layer = nn.Linear(40, 30)
    nn.init.zeros_(layer.weight)
    stream(write_checkpoint(stored_state(layer), tmp_path / "float"), skeleton_of(layer), tmp_path / "int8")
    (record,) = open_checkpoint(tmp_path / "int8").manifest.modules[""].weights.values()
    assert (record.sqnr_db, record.largest_error) == (math.inf, 0)


def test_files_and_sizes(tmp_path):
    _, outcome = streamed(tmp_path)
    folder = tmp_path / "int8"
    assert sorted(outcome.files) == sorted(path.name for path in folder.iterdir())
    assert outcome.files[-1] == "model.safetensors.index.json"
    assert outcome.bytes_written == sum(path.stat().st_size for path in folder.iterdir())
    for header in open_checkpoint(folder).shards.headers:
        assert min(info.start for info in header.tensors.values()) % 64 == 0
        assert all(info.start % info.dtype.itemsize == 0 for info in header.tensors.values())


@pytest.mark.parametrize(
    "name, given, written",
    [
        ("some.safetensors", "some.safetensors", "model.safetensors"),
        ("some.safetensors", "", "some.safetensors"),
        ("diffusion_pytorch_model.safetensors", "", "diffusion_pytorch_model.safetensors"),
    ],
)
def test_names_of_files(name, given, written, tmp_path):
    """They are kept, except that of a file that was given by itself: its folder is to be found by it."""
    layer = nn.Linear(40, 30)
    write_checkpoint(stored_state(layer), tmp_path / "float")
    (tmp_path / "float" / "model.safetensors").rename(tmp_path / "float" / name)
    shards = open_shards(tmp_path / "float" / given)
    assert stream(shards, skeleton_of(layer), tmp_path / "int8").files == (written,)
    (part,) = open_checkpoint(tmp_path / "int8").parts
    assert part.source.file == name
