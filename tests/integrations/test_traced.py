"""Tensors without values: pieces lead to what the same operations give on real tensors, or refuse."""

import pytest
import torch

from w8a16.checkpoint import TensorInfo
from w8a16.checkpoint.skeleton import Piece
from w8a16.integrations.boxes import NotFollowed
from w8a16.integrations.traced import Ledger, Traced

SHAPES = {
    "a": (4, 6),
    "b": (4, 6),
    "c": (8, 6),
    "d": (1, 6),
    "e": (3, 4, 6),
    "f": (6,),
    "g": (),
    "k": (8, 3, 2, 2),
}


def made_of(function, same_values=None, dtypes=None):
    """What a function makes of traced tensors, and of real ones."""
    dtypes = dtypes or {}
    infos = {name: TensorInfo(dtypes.get(name, torch.float32), shape, 0, 0) for name, shape in SHAPES.items()}
    ledger = Ledger(infos, same_values)
    count = 0
    real = {}
    for name, shape in SHAPES.items():
        size = torch.Size(shape).numel()
        real[name] = torch.arange(count, count + size, dtype=torch.float32).reshape(shape)
        count += size
    return ledger, function(**ledger.state()), function(**real), real


def followed(pieces, real, shape):
    result, filled = torch.full(shape, -1.0), 0
    for piece in pieces:
        part = real[piece.tensor]
        part = part if piece.rows is None else part[slice(*piece.rows)]
        part = part.mT if piece.transposed else part
        filled += part.numel()
        if piece.start is None:
            result = part.reshape(shape)
            continue
        part = part.reshape((1,) * (len(shape) - part.dim()) + part.shape)
        result[tuple(slice(i, i + n) for i, n in zip(piece.start, part.shape, strict=True))] = part
    assert filled == result.numel()
    return result


FOLLOWED = {
    "itself": lambda a, **_: a,
    "ellipsis": lambda a, **_: a[...],
    "a scalar": lambda g, **_: g.clone(),
    "moved and cast": lambda a, **_: a.to("cpu", torch.float64).float(),
    "stacked": lambda a, b, **_: torch.stack([a, b]),
    "stacked in the middle": lambda a, b, **_: torch.stack([a, b], 1)[:, 1],
    "joined": lambda a, c, b, **_: torch.cat([a, c, b]),
    "joined vectors": lambda f, **_: torch.cat([f, f]),
    "experts": lambda a, b, **_: torch.cat([torch.stack([a, b]), torch.stack([b, a])], dim=1),
    "experts, turned": lambda a, b, **_: torch.stack([a, b]).transpose(1, 2).contiguous(),
    "turned": lambda a, **_: a.t(),
    "permuted": lambda e, **_: e.permute(0, 2, 1),
    "turned twice": lambda a, **_: a.T.T,
    "first chunk": lambda c, **_: torch.chunk(c, 3)[0],
    "last chunk": lambda c, **_: torch.chunk(c, 3)[-1].contiguous(),
    "split": lambda c, **_: torch.split(c, [1, 5, 2])[1],
    "slice": lambda c, **_: c[2:7],
    "slice of rows and all columns": lambda c, **_: c[2:7, :],
    "narrow": lambda c, **_: c.narrow(0, 3, 2),
    "negative slice": lambda c, **_: c[-3:],
    "chunks in another order": lambda c, **_: torch.cat(torch.chunk(c, 2)[::-1]),
    "an expert of a stack of joined ones": lambda a, b, **_: torch.stack([a, b])[1],
    "unbound": lambda a, b, **_: torch.unbind(torch.stack([a, b]))[0],
    "flattened kernel": lambda k, **_: k.reshape(8, -1),
    "viewed": lambda a, **_: a.view(2, 12),
    "squeezed": lambda d, **_: d.squeeze(0),
    "squeezed away again": lambda a, **_: a.unsqueeze(0).squeeze(0),
    "unsqueezed": lambda f, **_: f[None],
    "rows of turned": lambda c, **_: c[2:6].t(),
}


@pytest.mark.parametrize("function", FOLLOWED.values(), ids=FOLLOWED.keys())
def test_pieces_lead_to_the_same_values(function):
    ledger, traced, expected, real = made_of(function)
    assert isinstance(traced, Traced)
    assert traced.shape == expected.shape
    assert torch.equal(followed(ledger.pieces(traced), real, expected.shape), expected)


REFUSED = {
    "arithmetic": (lambda a, b, **_: a + b, "add"),
    "in place": (lambda a, **_: a.mul_(2), "mul_"),
    "then moved": (lambda a, b, **_: torch.stack([a * 2, b]), "mul"),
    "columns": (lambda a, **_: a[:, :3], "parts of stored tensors that are not whole rows"),
    "a chunk of columns": (lambda a, **_: torch.chunk(a, 2, 1)[0], "parts of stored tensors"),
    "every other row": (lambda c, **_: c[::2], "slice"),
    "rope": (lambda c, **_: c.view(2, 4, 6).transpose(0, 1).reshape(8, 6), "view|clone|parts of"),
    "turned outer dimensions": (lambda e, **_: e.transpose(0, 1), "parts of stored tensors"),
    "with other values": (lambda a, **_: torch.cat([a, torch.ones(1, 6)]), "cat"),
    "repeated": (lambda a, **_: a.repeat(2, 1), "repeat|expand|copy_"),
}


@pytest.mark.parametrize("function, why", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_followed_is_said(function, why):
    ledger, traced, *_ = made_of(function)
    with pytest.raises(NotFollowed, match=why):
        ledger.pieces(traced)


def test_an_operation_in_place_spoils_the_tensor_itself():
    def scaled(a, **_):
        a.zero_()
        return a

    ledger, traced, *_ = made_of(scaled)
    with pytest.raises(NotFollowed, match="zero_"):
        ledger.pieces(traced)


def test_tensors_of_two_dtypes_cannot_be_one():
    ledger, traced, *_ = made_of(FOLLOWED["joined"], dtypes={"c": torch.bfloat16})
    with pytest.raises(NotFollowed, match="tensors of several dtypes"):
        ledger.pieces(traced)


def test_a_parameter_of_it_is_one():
    ledger, traced, *_ = made_of(lambda a, **_: torch.nn.Parameter(a))
    if not isinstance(traced, Traced):
        pytest.fail("the parameter has lost its class")
    assert isinstance(traced, torch.nn.Parameter)
    assert ledger.pieces(traced) == (Piece("a"),)


def test_equality_asks_the_files_once_for_whole_tensors():
    asked = []

    def same(one, other):
        asked.append((one, other))
        return True

    infos = {name: TensorInfo(torch.float32, (4, 6), 0, 0) for name in "ab"}
    ledger = Ledger(infos, same)
    a, b = ledger.state().values()
    assert torch.equal(a, b)
    assert not torch.equal(a[:2], b[:2])
    assert asked == [("a", "b")]
    assert ledger.copies == {"b": "a"}
