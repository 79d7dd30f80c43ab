"""Embeddings with int8 rows: what `nn.Embedding` gives with the dequantized table, and nothing wider."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import w8a16
from support.files import assert_same_model, on_meta
from support.twins import assert_unchanged, make_twin, quantize_with_twin, snapshot
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps
from w8a16.errors import DtypeError
from w8a16.layers import W8A16Embedding

IDS = torch.tensor([[0, 31, 5], [5, 5, 17]])
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def int8_table(**options):
    layer = w8a16.quantize(nn.Embedding(32, 16, **options))
    assert type(layer) is W8A16Embedding
    return layer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (1, 2, 3), (0,), (2, 0)], ids=str)
def test_it_gives_the_rows_of_the_dequantized_table(dtype, shape):
    layer = int8_table(dtype=dtype)
    twin = make_twin(layer)
    ids = torch.randint(32, shape)
    rows = layer(ids)
    assert rows.dtype == dtype
    assert torch.equal(rows, twin(ids))
    assert torch.equal(rows, layer.weight[ids])
    assert torch.equal(layer(ids.int()), rows)


def test_half_step_bound_and_buffers():
    table = nn.Embedding(32, 16)
    weight = table.weight.detach().clone()
    layer = w8a16.quantize(table)
    assert {name: (b.dtype, tuple(b.shape)) for name, b in layer.named_buffers()} == {
        "int8_weights": (torch.int8, (32, 16)),
        "scales": (torch.float32, (32,)),
    }
    assert list(layer.parameters()) == []
    assert error_in_half_steps(weight, layer.int8_weights, layer.scales).max() <= 1 + HALF_STEP_SLACK


@pytest.mark.parametrize("padding", [0, 3, -1])
def test_padding(padding):
    table = nn.Embedding(32, 16, padding_idx=padding)
    layer, twin = quantize_with_twin(table)
    assert layer.padding_idx == twin.padding_idx == padding % 32
    ids = torch.tensor([padding % 32, 7])
    assert layer(ids)[0].eq(0).all()
    assert torch.equal(layer(ids), twin(ids))
    layer.weight[layer.padding_idx].fill_(1)  # in forward it is a row like any other
    assert layer(ids)[0].eq(1).all()


@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}], ids=str)
def test_options_of_the_gradient_keep_their_values(options):
    layer, twin = quantize_with_twin(nn.Embedding(32, 16, **options))
    assert {name: getattr(layer, name) for name in options} == options
    assert torch.equal(layer(IDS), twin(IDS))


@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_max_norm(norm_type):
    layer, twin = quantize_with_twin(nn.Embedding(32, 16, max_norm=2.0, norm_type=norm_type))
    before = snapshot(layer)
    rows = layer(IDS)
    assert rows.norm(p=norm_type, dim=-1).max() <= 2.0 + 1e-5
    with torch.no_grad():
        torch.testing.assert_close(rows, twin(IDS), rtol=1e-6, atol=1e-6)
    assert_unchanged(layer, before)  # the float layer shortens rows in its table


class TestMoves:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_codes_and_scales_stay_as_they_are(self, dtype):
        layer = int8_table()
        codes, scales = layer.int8_weights.clone(), layer.scales.clone()
        layer.to(dtype)
        assert torch.equal(layer.int8_weights, codes)
        assert torch.equal(layer.scales, scales)
        assert (layer.scales.dtype, layer.weight_dtype) == (torch.float32, dtype)
        assert layer(IDS).dtype == layer.weight.dtype == dtype
        assert torch.equal(layer(IDS), make_twin(layer)(IDS))

    def test_a_round_trip_through_half_loses_nothing(self):
        layer = int8_table()
        before = layer(IDS)
        assert torch.equal(layer.half().bfloat16().float()(IDS), before)

    def test_to_meta(self):
        layer = int8_table(dtype=torch.bfloat16).to("meta")
        assert layer(IDS.to("meta")).shape == (2, 3, 16)
        assert layer(IDS.to("meta")).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_copies(way):
    layer = int8_table()
    other = way(layer)
    assert type(other) is W8A16Embedding
    assert torch.equal(other(IDS), layer(IDS))
    other.int8_weights.zero_()
    assert layer.int8_weights.any()


@pytest.mark.parametrize("skeleton", [False, True])
def test_round_trip_through_a_file(tmp_path, skeleton):
    def build():
        return nn.Sequential(nn.Embedding(32, 16, padding_idx=2), nn.Linear(16, 4))

    model = w8a16.quantize(build())
    other = w8a16.load(on_meta(build) if skeleton else build(), w8a16.save(model, tmp_path))
    assert_same_model(other, model)
    assert torch.equal(other(IDS), model(IDS))


def test_a_strict_state_dict():
    layer, other = int8_table(), int8_table()
    assert list(layer.state_dict()) == ["int8_weights", "scales"]
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(other(IDS), layer(IDS))
    with pytest.raises(RuntimeError, match=r"weight: found a float weight for a W8A16Embedding"):
        layer.load_state_dict(nn.Embedding(32, 16).state_dict())


def test_dequantize_gives_a_table_that_can_be_trained():
    layer = int8_table()
    rows = layer(IDS)
    table = w8a16.dequantize(layer)
    assert type(table) is nn.Embedding
    assert torch.equal(table(IDS), rows)
    table(IDS).sum().backward()
    assert table.weight.grad[5].eq(3).all()


@pytest.mark.parametrize("bad", [torch.tensor([32]), torch.tensor([-1]), torch.tensor([0, 10**9])], ids=str)
def test_indices_beyond_the_table(bad):
    with pytest.raises(IndexError):
        int8_table()(bad)


@pytest.mark.parametrize("bad", [torch.ones(3), torch.ones(3).bool(), [1, 2], None], ids=str)
def test_inputs_that_are_no_indices(bad):
    with pytest.raises((DtypeError, TypeError, RuntimeError)) as caught:
        int8_table()(bad)
    assert isinstance(caught.value, DtypeError)


def test_in_a_compiled_graph():
    torch.compiler.reset()
    model = w8a16.quantize(nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 4)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((3,), (2, 5)):
        ids = torch.randint(32, shape)
        torch.testing.assert_close(compiled(ids), model(ids), rtol=1e-6, atol=1e-6)


def test_nested_tensors():
    layer = int8_table()
    parts = [torch.tensor([1, 2, 3]), torch.tensor([31])]
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged)
    for rows, part in zip(layer(nested).unbind(), parts, strict=True):
        assert torch.equal(rows, layer(part))


class LargestFloat(TorchDispatchMode):
    """Keeps the number of elements of the largest float result of any operator."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return result


class Scaled(nn.Embedding):
    """As BART's and Gemma's tables."""

    def forward(self, ids):
        return super().forward(ids) * 4.0


class Positions(nn.Embedding):
    """As OPT's and BART's learned positions: two rows more, and an input of its own."""

    def __init__(self, count, width):
        self.offset = 2
        super().__init__(count + 2, width)

    def forward(self, mask, past=0):
        positions = (mask.cumsum(dim=1) * mask).long() - 1
        return super().forward(positions[:, past:] + self.offset)


LOOKUPS = {
    "Embedding": (lambda: nn.Embedding(4096, 16), IDS),
    "scaled": (lambda: Scaled(4096, 16), IDS),
    "positions": (lambda: Positions(4094, 16), torch.ones(2, 3).long()),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(4096, 16), IDS),
    "EmbeddingBag with padding": (lambda: nn.EmbeddingBag(4096, 16, padding_idx=0), IDS),
    "max_norm": (lambda: nn.Embedding(4096, 16, max_norm=1.0), IDS),
}


@pytest.mark.parametrize("case", LOOKUPS)
def test_a_lookup_widens_the_rows_in_use_and_no_more(case):
    build, ids = LOOKUPS[case]
    layer = w8a16.quantize(build())
    layer(ids)  # first uses may allocate things of their own
    with torch.no_grad(), LargestFloat() as seen:
        layer(ids)
    assert 16 <= seen.elements <= (ids.numel() + 1) * 16
    with LargestFloat() as seen:
        layer.weight.sum()
    assert seen.elements == 4096 * 16  # the measurement sees a whole table where there is one


@pytest.mark.parametrize("case", ["scaled", "positions"])
def test_subclasses_keep_their_forward(case):
    build, ids = LOOKUPS[case]
    table = build()
    model, twin = quantize_with_twin(nn.ModuleList([table]))
    assert isinstance(model[0], (type(twin[0]), W8A16Embedding))
    assert type(twin[0]) in (Scaled, Positions)
    assert torch.equal(model[0](ids), twin[0](ids))
    if case == "positions":
        assert torch.equal(model[0](ids, past=2), twin[0](ids, past=2))
        assert model[0].offset == 2
    else:
        assert torch.equal(model[0](ids), 4 * W8A16Embedding.forward(model[0], ids))
