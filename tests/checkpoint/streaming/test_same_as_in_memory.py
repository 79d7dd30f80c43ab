"""What is written is, to the bit, what quantizing the model in memory and saving it gives."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import w8a16
from support.experts import VARIANTS, make_experts
from support.files import assert_same_model, on_meta
from support.kinds import CASES
from support.numerics import DTYPES, name_of
from support.streaming import assert_streams, skeleton_of, stored_state, stream, write_checkpoint
from w8a16.checkpoint import open_checkpoint
from w8a16.layers import KINDS

CUTS = {"one block": None, "blocks": (1024, 512), "rows": (64, 64), "parts of rows": (16, 16)}
"""Bytes of a block, and of one that reads columns."""


class Attentions(nn.Module):
    """Queries, keys and values in one weight, and in three."""

    def __init__(self):
        super().__init__()
        self.joint = nn.MultiheadAttention(32, 4)
        self.separate = nn.MultiheadAttention(32, 4, kdim=16, vdim=24, add_bias_kv=True)


def layers(dtype=torch.float32):
    """Rows one behind the other: sizes that no block divides, zero rows, tiny rows."""
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(33, 17),
            "embedding": nn.Embedding(20, 24, padding_idx=0),
            "bag": nn.EmbeddingBag(20, 24),
            "attention": Attentions(),
            "norm": nn.BatchNorm1d(5),
        }
    )
    with torch.no_grad():
        model["linear"].weight[3] = 0
        model["linear"].weight[4] = 1e-42
        model["linear"].weight[5] *= 1e-20
    return model.to(dtype)


def transposed(dtype=torch.float32):
    """Rows along columns: transformers' Conv1D, and convolutions the other way round, in groups."""
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    model = nn.ModuleList(
        [
            conv1d(48, 32),
            conv1d(7, 65),
            nn.ConvTranspose2d(6, 8, 3, groups=2),
            nn.ConvTranspose1d(5, 9, 4),
        ]
    )
    with torch.no_grad():
        model[0].weight[:, 5] = 0
        model[1].weight[:, 2] = 1e-40
    return model.to(dtype)


def computed():
    """Weights that are made of other parameters, in the old way and in the new one."""
    pruned = nn.Linear(32, 16)
    prune.l1_unstructured(pruned, "weight", 0.5)
    return nn.ModuleDict(
        {
            "old weight norm": weight_norm(nn.Conv1d(8, 16, 3)),
            "old spectral norm": spectral_norm(nn.Linear(32, 32)),
            "weight norm": parametrizations.weight_norm(nn.Conv2d(8, 16, 3)),
            "spectral norm": parametrizations.spectral_norm(nn.Linear(32, 16)),
            "orthogonal": parametrizations.orthogonal(nn.Linear(16, 16)),
            "pruned": pruned,
            "plain": nn.Linear(32, 32),
        }
    )


def bare():
    """Parameters of a class that nobody knows, and one in another dtype than its neighbours."""
    model = nn.Module()
    model.table = nn.Parameter(torch.randn(3, 4, 40))
    model.matrix = nn.Parameter(torch.randn(16, 40))
    model.small = nn.Parameter(torch.randn(4, 4).half())
    model.gain = nn.Parameter(torch.randn(40))
    model.scalar = nn.Parameter(torch.tensor(3.0))
    return model


@pytest.fixture(params=CUTS.items(), ids=CUTS.keys())
def every_cut(request, cut_small):
    name, sizes = request.param
    if sizes is not None:
        cut_small(*sizes)
    return name


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_every_dtype(dtype, shards, every_cut, tmp_path):
    assert_streams(lambda: layers(dtype), tmp_path, shards)


@pytest.mark.transformers
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rows_along_columns(dtype, every_cut, tmp_path, cut_small):
    if every_cut == "parts of rows":
        cut_small(16, 256)  # a column is never cut
    assert_streams(lambda: transposed(dtype), tmp_path, 2)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_convolution_and_recurrent_net(case, every_cut, tmp_path, cut_small):
    if every_cut == "parts of rows":
        cut_small(16, 256)
    assert_streams(lambda: nn.ModuleList([case.make()]), tmp_path, 2)


@pytest.mark.transformers
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("cut", [None, (2048, 2048), (100, 300)], ids=str)
def test_experts(variant, dtype, cut, tmp_path, cut_small):
    if cut is not None:
        cut_small(*cut)
    assert_streams(lambda: nn.ModuleList([make_experts(variant, dtype)]), tmp_path)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_computed_weights(every_cut, tmp_path):
    assert_streams(computed, tmp_path, 3)


def test_parameters_of_unknown_classes(every_cut, tmp_path):
    assert_streams(bare, tmp_path, 3)


def test_dtypes_of_several_modules(every_cut, tmp_path):
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    assert_streams(lambda: nn.Sequential(*[nn.Linear(16, 16, dtype=dtype) for dtype in dtypes]), tmp_path, 3)


def test_the_model_itself_is_a_layer(tmp_path):
    assert_streams(lambda: nn.Linear(32, 16), tmp_path)


def test_no_layer_kind_is_forgotten(tmp_path):
    builders = [layers, transposed, bare, *(case.make for case in CASES.values())]
    builders.append(lambda: make_experts(next(iter(VARIANTS.values()))))
    met = set()
    for number, build in enumerate(builders):
        model = nn.ModuleList([build()])
        shards = write_checkpoint(stored_state(model), tmp_path / f"float-{number}")
        stream(shards, skeleton_of(model), tmp_path / f"int8-{number}")
        met |= {
            record.kind for record in open_checkpoint(tmp_path / f"int8-{number}").manifest.modules.values()
        }
    assert met == {kind.name for kind in KINDS}


@pytest.mark.parametrize("start", ["float", "meta", "int8"])
def test_it_loads(start, tmp_path):
    folder = assert_streams(layers, tmp_path, 3)
    torch.manual_seed(0)
    expected = w8a16.quantize(layers().eval())
    target = {
        "float": layers,
        "meta": lambda: on_meta(layers),
        "int8": lambda: w8a16.quantize(layers()),
    }[start]().eval()
    assert_same_model(w8a16.load(target, folder), expected)
