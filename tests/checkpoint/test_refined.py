"""Groups and outliers on disk: saved, streamed, loaded, and refused where they are wrong."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import w8a16
from support.files import assert_same_model, bits, edit_manifest, on_meta
from support.streaming import assert_as_in_memory, skeleton_of, stored_state, stream, write_checkpoint
from w8a16 import Recipe
from w8a16.checkpoint import open_checkpoint, restoring
from w8a16.checkpoint.restoring import plan_restoring, restore_checkpoint
from w8a16.checkpoint.streaming import Options, cutting
from w8a16.checkpoint.verification import Original, verify_checkpoint, weights
from w8a16.errors import CheckpointError

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
RECIPE = Recipe(group_size={"first": 32}, outliers={"second": 3, "table": 2})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(48, 64)
        self.first = nn.Linear(64, 96)
        self.second = nn.Linear(96, 64)
        self.third = nn.Linear(64, 48)

    def forward(self, tokens):
        return self.third(self.second(torch.relu(self.first(self.table(tokens)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        model.second.weight[:, 5] *= 30
    return model


@pytest.fixture
def saved(net, tmp_path):
    return w8a16.quantize(net, recipe=RECIPE), w8a16.save(net, tmp_path / "saved.safetensors")


@pytest.mark.parametrize("into", [Net, lambda: on_meta(Net), lambda: w8a16.quantize(Net(), recipe=RECIPE)])
@pytest.mark.parametrize("mmap", [False, True])
def test_loaded_model_equals_the_saved_one(saved, into, mmap):
    model, file = saved
    loaded = w8a16.load(into(), file, mmap=mmap)
    assert_same_model(loaded, model)
    assert torch.equal(loaded(TOKENS), model(TOKENS))


def test_only_a_file_that_needs_it_has_the_new_version(saved, tmp_path):
    def version(file):
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            return json.loads(json.loads(opened.read(size))["__metadata__"]["w8a16"])["format_version"]

    plain = w8a16.save(w8a16.quantize(Net()), tmp_path / "plain.safetensors")
    assert (version(saved[1]), version(plain)) == (3, 2)


def test_streaming_gives_what_memory_gives(net, tmp_path):
    shards = write_checkpoint(stored_state(net), tmp_path / "float", lambda key: len(key) % 2)
    stream(shards, skeleton_of(Net()), tmp_path / "int8", Options(RECIPE))
    assert_as_in_memory(tmp_path / "int8", net, Options(RECIPE))
    weights = open_checkpoint(tmp_path / "int8").manifest.modules["second"].weights
    assert weights["weight"].sqnr_db > 35  # with one scale a row it is below 20


def test_streamed_figures_count_the_outliers_as_signal(net, tmp_path):
    shards = write_checkpoint(stored_state(net), tmp_path / "float")
    stream(shards, skeleton_of(Net()), tmp_path / "int8", Options(RECIPE))
    original = net.second.weight.detach().double()
    loaded = w8a16.load(Net(), tmp_path / "int8")
    error = (loaded.second.dequantized(dtype=torch.float64) - original).square().sum()
    found = open_checkpoint(tmp_path / "int8").manifest.modules["second"].weights["weight"].sqnr_db
    assert found == pytest.approx(float(10 * torch.log10(original.square().sum() / error)), abs=0.02)


@pytest.fixture
def turned():
    """transformers' Conv1D, whose rows are the columns of its file, in groups, with outliers, and plain."""
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    torch.manual_seed(0)
    return nn.Sequential(conv1d(40, 64), conv1d(64, 40), conv1d(24, 64)).eval()


TURNED = Recipe(group_size={"0": 16, "2": 32}, outliers={"1": 3})


@pytest.mark.parametrize("elements", [1, 200, 1 << 20])  # a column at a time, some of them, all of them
def test_groups_of_rows_that_are_columns_of_the_file(turned, tmp_path, monkeypatch, elements):
    monkeypatch.setattr(cutting, "COLUMN_BLOCK_BYTES", 4 * elements)
    for module in (weights, restoring):
        monkeypatch.setattr(module, "_ELEMENTS", elements)
    monkeypatch.setattr(restoring, "_COLUMN_ELEMENTS", elements)
    shards = write_checkpoint(stored_state(turned), tmp_path / "float")
    int8 = tmp_path / "int8"
    stream(shards, skeleton_of(copy.deepcopy(turned)), int8, Options(TURNED))
    assert_as_in_memory(int8, copy.deepcopy(turned), Options(TURNED))
    checkpoint = open_checkpoint(int8)
    report = verify_checkpoint(checkpoint, Original(shards, {}))
    assert not report.findings
    assert (report.compared, report.not_compared) == (6, {})
    (tmp_path / "back").mkdir()
    restore_checkpoint(checkpoint, plan_restoring(checkpoint), tmp_path / "back")
    found = load_file(tmp_path / "back" / "model.safetensors")
    expected = w8a16.dequantize(w8a16.quantize(turned, recipe=TURNED)).state_dict()
    assert {name: bits(tensor) for name, tensor in found.items()} == {
        name: bits(tensor) for name, tensor in expected.items()
    }


def test_a_wrong_code_in_a_group_of_a_column_is_found_where_it_is(turned, tmp_path):
    shards = write_checkpoint(stored_state(turned), tmp_path / "float")
    stream(shards, skeleton_of(copy.deepcopy(turned)), tmp_path / "int8", Options(TURNED))
    with torch.no_grad():
        turned[0].weight[37, 5] += 1  # row 5; of its groups of 16 the third, and there the sixth
    other = write_checkpoint(stored_state(turned), tmp_path / "other")
    (finding,) = verify_checkpoint(open_checkpoint(tmp_path / "int8"), Original(other, {})).findings
    assert (finding.count, finding.first) == (1, (5, 2, 5))


@pytest.mark.parametrize(
    "edit",
    [
        {"group": 16},
        {"group": 0},
        {"lead": 1},
        {"outliers": 2},
        {"group": -32},
        {"group": True},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(saved, edit):
    _, file = saved

    def change(manifest):
        manifest["modules"]["first"]["weights"]["weight"].update(edit)
        return json.dumps(manifest)

    edit_manifest(file, change)
    with pytest.raises(CheckpointError):
        w8a16.load(Net(), file)


def test_a_kind_that_cannot_have_them(saved):
    _, file = saved

    def change(manifest):
        manifest["modules"]["first"]["kind"] = "parameter"
        return json.dumps(manifest)

    edit_manifest(file, change)
    with pytest.raises(CheckpointError):
        w8a16.load(Net(), file)


def test_an_int8_model_that_is_held_in_another_way(saved):
    _, file = saved
    with pytest.raises(
        CheckpointError, match="first: weight: the weight has another layout in the checkpoint"
    ):
        w8a16.load(w8a16.quantize(Net()), file)
