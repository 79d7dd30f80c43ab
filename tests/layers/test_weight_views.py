"""Parts, views and products of int8 weights: the same values as of float weights, read from the codes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import w8a16
from support.twins import quantized_linear
from w8a16.layers import COLUMNS, ROWS, Layout
from w8a16.layers.experts import W8A16Experts
from w8a16.layers.float_weight import FloatWeight

E, N, K = 4, 12, 20


class Stack(nn.Module):
    """`[E, N, K]` or `[E, K, N]`, whose class counts experts."""

    def __init__(self, transposed):
        super().__init__()
        self.num_experts, self.in_features, self.out_features = E, K, N
        self.weight = nn.Parameter(torch.randn(E, K, N) if transposed else torch.randn(E, N, K))


class Table(nn.Module):
    """`[E * N, K]` in one matrix, as DBRX has it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(E * N, K))


@pytest.fixture
def rows():
    return w8a16.quantize(Stack(transposed=False))


@pytest.fixture
def columns():
    return w8a16.quantize(Stack(transposed=True))


@pytest.fixture
def widened(monkeypatch):
    """How many elements were dequantized."""
    sizes = []
    original = FloatWeight._materialize

    def counted(self):
        value = original(self)
        sizes.append(value.numel())
        return value

    monkeypatch.setattr(FloatWeight, "_materialize", counted)
    return sizes


def assert_near(actual, expected):
    assert isinstance(actual, Tensor)
    assert not isinstance(actual, FloatWeight)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_the_layouts(rows, columns):
    assert isinstance(rows, W8A16Experts)
    assert isinstance(columns, W8A16Experts)
    assert rows.layouts == {"weight": Layout(lead=2)}
    assert columns.layouts == {"weight": Layout(lead=2, swapped=True)}
    assert rows.int8_weights.shape == columns.int8_weights.shape == (E, N, K)


ROW_PRODUCTS = {
    "linear with one": lambda x, w: functional.linear(x[0], w[2]),
    "linear with one by tensor": lambda x, w: functional.linear(x[0], w[torch.tensor(2)]),
    "product with one, turned by t": lambda x, w: x[0] @ w[2].t(),
    "product with one, turned by T": lambda x, w: x[0].matmul(w[2].T),
    "mm with one, turned by transpose": lambda x, w: torch.mm(x[0], w[2].transpose(0, 1)),
    "one row": lambda x, w: x[0, 0] @ w[-1].mT,
    "bmm with the turned stack": lambda x, w: torch.bmm(x, w.transpose(1, 2)),
    "product with the turned stack": lambda x, w: x @ w.transpose(-1, -2),
    "product with mT": lambda x, w: x @ w.mT,
    "turned twice": lambda x, w: functional.linear(x[0], w.mT.mT[1]),
    "some of them": lambda x, w: torch.bmm(x[:3], w[torch.tensor([3, 0, 3])].transpose(1, 2)),
    "some of them by index_select": lambda x, w: x[:2] @ w.index_select(0, torch.tensor([3, 1])).mT,
}
COLUMN_PRODUCTS = {
    "bmm": torch.bmm,
    "product with the stack": lambda x, w: x @ w,
    "product with one": lambda x, w: x[0] @ w[3],
    "linear with one, turned": lambda x, w: functional.linear(x[0], w[3].T),
    "some of them": lambda x, w: torch.bmm(x[:2], torch.index_select(w, 0, torch.tensor([2, 2]))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("product", ROW_PRODUCTS.values(), ids=ROW_PRODUCTS)
def test_products_with_rows_use_the_codes(rows, widened, product, dtype):
    check_product(rows.to(dtype), widened, product, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("product", COLUMN_PRODUCTS.values(), ids=COLUMN_PRODUCTS)
def test_products_with_columns_use_the_codes(columns, widened, product, dtype):
    check_product(columns.to(dtype), widened, product, dtype)


def check_product(module, widened, product, dtype):
    x = torch.randn(E, 5, K).to(dtype)
    output = product(x, module.weight)
    assert widened == []
    assert type(output) is Tensor
    assert output.dtype == dtype
    exact = product(x.double(), module.dequantized("weight", torch.float64))
    assert output.shape == exact.shape
    assert (output.double() - exact).norm() <= torch.finfo(dtype).eps * exact.norm()


def test_a_matrix_of_experts_seen_as_a_stack(widened):
    module, x = w8a16.quantize(Table()), torch.randn(3, K)
    exact = module.dequantized("weight")
    for seen in (module.weight.view(-1, N, K), module.weight.view((E, N, K)), module.weight.reshape(E, N, K)):
        assert seen.shape == (E, N, K)
        assert_near(x @ seen[1].T, x @ exact[N : 2 * N].T)
    assert widened == []


def test_only_the_part_is_widened_where_the_scales_do_not_allow_the_codes(widened):
    """The second projection of DBRX: its scales are on what the product takes in."""
    module, x = w8a16.quantize(Table()), torch.randn(3, N)
    assert_near(x.matmul(module.weight.view(-1, N, K)[1]), x @ module.dequantized("weight")[N : 2 * N])
    assert set(widened) == {N * K}


SHAPES = {
    "other broadcasting": lambda x, w: torch.matmul(x[:, None], w.mT[None]),
    "view of other sizes": lambda x, w: w.view(E * N, K),
    "an axis more": lambda x, w: w[None].sum(1),
    "outer dimensions turned": lambda x, w: w.transpose(0, 1),
    "mask": lambda x, w: w[torch.tensor([True, False, True, False])],
    "slice": lambda x, w: w[1:3],
    "table of indices": lambda x, w: w[torch.tensor([[0, 1], [2, 3]])],
    "list": lambda x, w: w[[0, 2]],
    "pair": lambda x, w: w[1, 2],
}


@pytest.mark.parametrize("compute", SHAPES.values(), ids=SHAPES)
def test_everything_else_gets_the_values(rows, compute):
    x = torch.randn(E, 5, K)
    assert_near(compute(x, rows.weight), compute(x, rows.dequantized("weight")))


def test_the_whole_weight_of_a_layer_turned(widened):
    layer, x = quantized_linear(), torch.randn(3, 16)
    assert layer.layouts == {"weight": ROWS}
    assert layer.weight.T._layout == COLUMNS
    assert_near(x @ layer.weight.T, x @ layer.dequantized("weight").T)
    assert widened == []


def test_what_can_be_known_of_a_view(rows):
    for view in (rows.weight.mT, rows.weight[0].t(), rows.weight[torch.tensor([1])]):
        assert isinstance(view, Tensor)
        assert not isinstance(view, nn.Parameter)
        assert view.dtype == torch.float32
        assert torch.equal(view + 0, view.clone())
    assert rows.weight.mT.shape == (E, K, N)
    assert rows.weight.mT.clone().shape == (E, K, N)
    torch.testing.assert_close(rows.weight.mT.clone(), rows.dequantized("weight").mT, rtol=0, atol=0)


def test_writing_into_a_view_changes_the_weight(rows):
    weight = rows.weight
    turned = weight.mT
    turned[:, 3, :] = 0
    assert rows.dequantized("weight")[:, :, 3].eq(0).all()
    assert rows.dequantized("weight").ne(0).any()
    assert (torch.eye(K).expand(E, K, K) @ turned)[:, 3].eq(0).all()


def test_a_view_made_before_the_weight_was_written_sees_it(rows):
    weight = rows.weight
    turned = weight.mT
    weight[1] = 0
    assert rows.dequantized("weight")[1].eq(0).all()
    assert turned.clone()[1].eq(0).all()


def test_writing_into_a_selection_changes_the_selection_only(rows):
    before = rows.dequantized("weight")
    some = rows.weight[torch.tensor([0, 2])]
    some.mul_(2)
    assert_near(some + 0, 2 * before[[0, 2]])
    x = torch.randn(2, 5, K)
    assert_near(x @ some.mT, x @ (2 * before[[0, 2]]).mT)
    assert torch.equal(rows.dequantized("weight"), before)


def test_gradients_to_the_input(rows, columns):
    for module, product in (
        (rows, ROW_PRODUCTS["bmm with the turned stack"]),
        (columns, COLUMN_PRODUCTS["bmm"]),
    ):
        x = torch.randn(E, 5, K, requires_grad=True)
        product(x, module.weight).square().sum().backward()
        expected = x.detach().clone().requires_grad_()
        product(expected, module.dequantized("weight")).square().sum().backward()
        torch.testing.assert_close(x.grad, expected.grad, rtol=1e-5, atol=1e-3)
