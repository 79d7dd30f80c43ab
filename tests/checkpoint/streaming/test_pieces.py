"""Tensors that are put together from several stored ones, or from some rows of one."""

import zlib

import pytest
import torch
from torch import nn

from support.streaming import (
    assert_as_in_memory,
    in_turn,
    skeleton_of,
    stream,
    tensors_in,
    write_checkpoint,
)
from w8a16.checkpoint import open_checkpoint
from w8a16.checkpoint.skeleton import Piece
from w8a16.errors import CheckpointError


class Tensors(nn.Module):
    """A module with these parameters."""

    def __init__(self, **parameters):
        super().__init__()
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))


def assert_made(model, stored, sources, folder, shards=1):
    """The stored tensors become what quantizing `model` in memory gives."""
    found = write_checkpoint(stored, folder / "float", in_turn(stored, shards) if shards > 1 else None)
    values = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
    stream(found, skeleton_of(model, sources=sources), folder / "int8")
    again = Tensors(**values) if isinstance(model, Tensors) else rebuilt(model, values)
    assert_as_in_memory(folder / "int8", again)


def rebuilt(model, values):
    linear = nn.Linear(*reversed(values["weight"].shape))
    linear.load_state_dict(values)
    return linear


@pytest.fixture(params=[None, (64, 200), (16, 512)], ids=str)
def cut(request, cut_small):
    if request.param:
        cut_small(*request.param)


@pytest.mark.parametrize("shards", [1, 3])
def test_experts_stored_one_by_one(cut, shards, tmp_path):
    """Gate and up of each expert side by side, the down projections beneath them, dealt out to shards."""
    gates, ups, downs = torch.randn(3, 8, 40), torch.randn(3, 8, 40), torch.randn(3, 16, 24)
    stored, joint, down = {}, [], []
    for e in range(3):
        stored |= {f"{e}.gate": gates[e], f"{e}.up": ups[e], f"{e}.down": downs[e]}
        joint += [Piece(f"{e}.gate", (e, 0, 0)), Piece(f"{e}.up", (e, 8, 0))]
        down.append(Piece(f"{e}.down", (e, 0, 0)))
    model = Tensors(gate_up=torch.cat([gates, ups], 1), down=downs)
    assert_made(model, stored, {"gate_up": tuple(joint), "down": tuple(down)}, tmp_path, shards)


def test_experts_stored_the_other_way_round(cut, tmp_path):
    tables = torch.randn(3, 8, 40)
    stored = {str(e): tables[e].T for e in range(3)}
    pieces = tuple(Piece(str(e), (e, 0, 0), transposed=True) for e in range(3))
    assert_made(Tensors(table=tables), stored, {"table": pieces}, tmp_path)


def test_parts_of_a_part_turned(cut, tmp_path):
    """Rows are taken before the last two dimensions are exchanged."""
    tables = torch.randn(4, 8, 40)
    pieces = (
        Piece("all", (0, 0, 0), transposed=True, rows=(2, 4)),
        Piece("all", (2, 0, 0), transposed=True, rows=(0, 2)),
    )
    stored = {"all": torch.cat([tables[2:], tables[:2]]).mT}
    assert_made(Tensors(table=tables), stored, {"table": pieces}, tmp_path)


def test_a_linear_layer_stored_transposed_or_in_another_shape(cut, tmp_path):
    layer = nn.Linear(32, 16)
    stored = {"turned": layer.weight.T, "bias": layer.bias}
    sources = {"weight": (Piece("turned", transposed=True),), "bias": (Piece("bias"),)}
    assert_made(layer, stored, sources, tmp_path / "turned")
    layer = nn.Linear(32, 16)
    stored = {"image": layer.weight.view(16, 2, 4, 4), "bias": layer.bias.view(1, 16)}
    sources = {"weight": (Piece("image"),), "bias": (Piece("bias"),)}
    assert_made(layer, stored, sources, tmp_path / "image")


def test_rows_of_a_fused_projection(cut, tmp_path):
    """Queries and keys in one stored tensor, in an order of their own: its bytes are summed up once."""
    q, k = torch.randn(16, 32), torch.randn(24, 32)
    sources = {"q": (Piece("kq", rows=(24, 40)),), "k": (Piece("kq", rows=(0, 24)),)}
    assert_made(Tensors(q=q, k=k), {"kq": torch.cat([k, q])}, sources, tmp_path)


@pytest.mark.parametrize("rows", [((0, 24), (24, 40)), ((0, 20), (0, 20)), ((5, 40), (0, 5))], ids=str)
def test_bytes_are_read_once_where_that_is_enough(rows, cut, tmp_path):
    """Half of a tensor used twice is not the whole of it."""
    table = torch.randn(40, 32)
    model = Tensors(a=table[slice(*rows[0])], b=table[slice(*rows[1])])
    sources = {name: (Piece("all", rows=part),) for name, part in zip("ab", rows, strict=True)}
    shards = write_checkpoint({"all": table}, tmp_path / "float")
    seen = []
    stream(
        shards, skeleton_of(model, sources=sources), tmp_path / "int8", progress=lambda *now: seen.append(now)
    )
    size = shards.headers[0].identity[2]
    assert seen[-1] == ((size,) * 2 if rows[0] != rows[1] else (size + 40 * 32 * 4,) * 2)
    assert open_checkpoint(tmp_path / "int8").manifest.source is not None
    assert open_checkpoint(tmp_path / "int8").parts[0].source.crc32 == zlib.crc32(
        (tmp_path / "float" / "model.safetensors").read_bytes()
    )


def test_a_wide_float_matrix_in_parts(cut, tmp_path):
    """Kept float, and its rows are longer than a block."""
    bias, other = torch.randn(3, 40), torch.randn(32, 32)
    stored = {"2": bias[2], "01": bias[:2], "other": other}
    sources = {"bias": (Piece("2", (2, 0)), Piece("01", (0, 0))), "other": (Piece("other"),)}
    assert_made(Tensors(bias=bias, other=other), stored, sources, tmp_path)


def test_overlapping_rows_and_a_tensor_used_twice(cut, tmp_path):
    table = torch.randn(40, 32)
    model = Tensors(a=table[:30], b=table[10:], c=table, d=table)
    sources = {
        "a": (Piece("all", rows=(0, 30)),),
        "b": (Piece("all", rows=(10, 40)),),
        "c": (Piece("all"),),
        "d": (Piece("all"),),
    }
    assert_made(model, {"all": table}, sources, tmp_path)


def test_a_bias_in_parts(cut, tmp_path):
    layer = nn.Linear(32, 16)
    stored = {
        "w1": layer.weight[:6],
        "w2": layer.weight[6:],
        "b2": layer.bias[6:],
        "b1": layer.bias[:6],
    }
    sources = {
        "weight": (Piece("w1", (0, 0)), Piece("w2", (6, 0))),
        "bias": (Piece("b1", (0,)), Piece("b2", (6,))),
    }
    assert_made(layer, stored, sources, tmp_path, shards=3)


def test_a_float_stack_in_parts(cut, tmp_path):
    """Kept float because it is narrow; a part fills one index of the first dimension."""
    stack = torch.randn(3, 5, 2).half()
    stored = {str(i): stack[i].T for i in range(3)}
    pieces = tuple(Piece(str(i), (i, 0, 0), transposed=True) for i in range(3))
    model = Tensors(stack=stack, other=torch.randn(32, 32))
    stored["other"] = model.other
    assert_made(model, stored, {"stack": pieces, "other": (Piece("other"),)}, tmp_path)
    assert tensors_in(tmp_path / "int8")["stack"].equal(stack)
    assert open_checkpoint(tmp_path / "int8").manifest.kept_float == {"stack": "not_smaller"}


WRONG = {
    "missing": ((Piece("a", (0, 0)),), "do not give each of them once: a"),
    "twice": ((Piece("a", (0, 0)), Piece("a", (0, 0)), Piece("b", (8, 0))), "each of them once: a, a, b"),
    "overlap": ((Piece("a", (0, 0)), Piece("b", (4, 0))), "each of them once: a, b"),
    "gap and overlap": ((Piece("a", (4, 0)), Piece("b", (8, 0))), "each of them once: a, b"),
    "beyond": ((Piece("a", (0, 0)), Piece("b", (12, 0))), "it reaches beyond, from [12, 0]"),
    "part of rows": ((Piece("half", (0, 0)), Piece("half", (0, 16))), "parts of rows"),
    "no such rows": ((Piece("a", rows=(4, 20)),), "it has no rows 4 to 20"),
    "rows backwards": ((Piece("a", rows=(4, 2)),), "it has no rows 4 to 2"),
    "wrong shape": ((Piece("a"),), "another shape"),
    "wrong turn": ((Piece("square", transposed=True),), "another shape"),
    "dimensions": ((Piece("a", (0,)), Piece("b", (8,))), "another number of dimensions"),
    "a vector turned": ((Piece("vector", transposed=True),), "no two dimensions to exchange"),
    "dtype": ((Piece("a", (0, 0)), Piece("double", (8, 0))), "expected torch.float32, found torch.float64"),
}


@pytest.mark.parametrize("pieces, text", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("kept", [False, True], ids=["int8", "float"])
def test_pieces_that_do_not_fit(pieces, text, kept, tmp_path):
    stored = {
        "a": torch.randn(8, 32),
        "b": torch.randn(8, 32),
        "half": torch.randn(16, 16),
        "square": torch.randn(16, 32),
        "vector": torch.randn(512),
        "double": torch.randn(8, 32).double(),
    }
    used = {piece.tensor for piece in pieces}
    shards = write_checkpoint({key: stored[key] for key in used}, tmp_path / "float")
    name = "bias" if kept else "table"  # a bias stays float
    skeleton = skeleton_of(Tensors(**{name: torch.randn(16, 32)}), sources={name: pieces})
    with pytest.raises(CheckpointError) as caught:
        stream(shards, skeleton, tmp_path / "int8")
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"{name}")
    assert list((tmp_path / "int8").iterdir()) == []


def test_what_is_missing_and_what_is_left_over(tmp_path):
    shards = write_checkpoint({"a": torch.ones(16, 32), "more": torch.ones(2)}, tmp_path / "float")
    model = Tensors(a=torch.ones(16, 32), gone=torch.ones(3), lost=torch.ones(16, 32))
    with pytest.raises(CheckpointError) as caught:
        stream(shards, skeleton_of(model, sources={"a": (Piece("a"),)}), tmp_path / "int8")
    assert str(caught.value) == (
        f"{tmp_path / 'float'}: Tensors needs 2 tensors that the files lack: gone, lost"
    )
    model = Tensors(a=torch.ones(16, 32))
    with pytest.raises(CheckpointError) as caught:
        stream(shards, skeleton_of(model), tmp_path / "again")
    assert str(caught.value) == (
        f"{tmp_path / 'float'}: Tensors has no place for 1 tensors of the files: more"
    )
    stream(shards, skeleton_of(Tensors(a=torch.ones(16, 32)), ignored=("more",)), tmp_path / "third")
    assert tensors_in(tmp_path / "third").keys() == {"a_int8_weights", "a_scales"}
