"""Parameters of modules that no kind knows: stored as int8, read by the module's own forward."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

import w8a16
from support.files import assert_same_model, on_meta
from support.twins import assert_equals_twin, assert_unchanged, make_twin, quantize_with_twin, snapshot
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps
from w8a16.layers import Layout, QuantizedModule, W8A16LinearLayer


class Reader(nn.Module):
    """Parameters and one way to use them."""

    def __init__(self, use, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))
        self.use = use

    def forward(self, x):
        return self.use(self, x)


USES = {
    "matmul": (lambda m, x: x @ m.w, {"w": (16, 8)}),
    "matmul from the left": (lambda m, x: m.w @ x.t(), {"w": (8, 16)}),
    "linear": (lambda m, x: functional.linear(x, m.w), {"w": (8, 16)}),
    "linear of the transposed": (lambda m, x: functional.linear(x, m.w.t()), {"w": (16, 8)}),
    "linear of a view": (lambda m, x: functional.linear(x, m.w.view(8, 16)), {"w": (2, 4, 16)}),
    "linear of one of a stack": (lambda m, x: functional.linear(x, m.w[1]), {"w": (2, 8, 16)}),
    "matmul with one of a stack": (lambda m, x: x @ m.w[1], {"w": (2, 16, 8)}),
    "einsum": (lambda m, x: torch.einsum("bk,hkd->bhd", x, m.w), {"w": (4, 16, 6)}),
    "bmm": (lambda m, x: torch.bmm(x.expand(4, *x.shape), m.w), {"w": (4, 16, 6)}),
    "baddbmm": (
        lambda m, x: torch.baddbmm(m.b, x.expand(4, *x.shape), m.w),
        {"w": (4, 16, 6), "b": (4, 3, 6)},
    ),
    "addmm": (lambda m, x: torch.addmm(m.b, x, m.w), {"w": (16, 8), "b": (3, 8)}),
    "position table": (lambda m, x: x + m.w[: x.shape[0]], {"w": (10, 16)}),
    "position table with a batch": (lambda m, x: x + m.w[:, :3], {"w": (1, 10, 16)}),
    "cls token": (lambda m, x: torch.cat([m.w.expand(2, -1, -1), x.expand(2, 3, 16)], 1), {"w": (1, 2, 16)}),
    "lookup": (lambda m, x: functional.embedding((x > 0).long().sum(1), m.w), {"w": (17, 16)}),
    "index": (lambda m, x: m.w[(x > 0).long().sum(1)] * x, {"w": (17, 16)}),
    "index_select": (lambda m, x: x * m.w.index_select(0, torch.tensor([0, 5, 5])), {"w": (17, 16)}),
    "unsqueeze": (lambda m, x: x.unsqueeze(1) * m.w.unsqueeze(0), {"w": (4, 16)}),
    "transposed in place of it": (lambda m, x: x @ m.w.transpose(0, 1).contiguous(), {"w": (8, 16)}),
    "chunk": (lambda m, x: x * m.w.chunk(2)[1], {"w": (6, 16)}),
    "softmax": (lambda m, x: functional.softmax(m.w, -1) @ x.t(), {"w": (4, 16)}),
    "convolution": (lambda m, x: functional.conv1d(x.unsqueeze(1), m.w), {"w": (4, 1, 5)}),
    "normalized": (lambda m, x: x @ functional.normalize(m.w, dim=0), {"w": (16, 8)}),
    "cast": (lambda m, x: x.double() @ m.w.double(), {"w": (16, 8)}),
    "two of them": (lambda m, x: x @ m.w @ m.v, {"w": (16, 8), "v": (8, 6)}),
    "interpolated": (
        lambda m, x: x + functional.interpolate(m.w, size=16, mode="linear").squeeze(0),
        {"w": (1, 3, 8)},
    ),
    "getattr": (lambda m, x: x @ getattr(m, "w").data, {"w": (16, 8)}),  # noqa: B009
}


@pytest.mark.parametrize("name", USES)
def test_it_equals_its_twin(name):
    use, shapes = USES[name]
    model = nn.Sequential(Reader(use, **shapes))
    plan = w8a16.plan(model, strict=True)
    assert {(row.name, row.reason) for row in plan.rows} == {(f"0.{name}", "stored") for name in shapes}
    model, twin = quantize_with_twin(model)
    assert type(twin[0]) is Reader
    assert isinstance(model[0], Reader)
    for weight, shape in shapes.items():
        assert getattr(model[0], f"{weight}_int8_weights").shape == shape
        assert getattr(model[0], f"{weight}_scales").shape == shape[:-1]
    x = torch.randn(3, 16)
    with torch.no_grad():
        assert_equals_twin(model, twin, x)
        assert_equals_twin(model, twin, x)  # reading leaves nothing behind


@pytest.mark.parametrize(
    "name", ["matmul", "linear", "einsum", "bmm", "lookup", "matmul with one of a stack"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(name, dtype):
    use, shapes = USES[name]
    model, twin = quantize_with_twin(nn.Sequential(Reader(use, **shapes)).to(dtype))
    x = torch.randn(3, 16, dtype=dtype)
    with torch.no_grad():
        assert model(x).dtype == dtype
        assert_equals_twin(model, twin, x, 1e-5 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["matmul", "linear", "einsum", "two of them", "position table"])
def test_gradients_to_the_input(name):
    use, shapes = USES[name]
    model, twin = quantize_with_twin(nn.Sequential(Reader(use, **shapes)))
    x, grads = torch.randn(3, 16), []
    for module in (model, twin):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["matmul", "linear", "einsum", "bmm", "lookup", "position table", "chunk"])
def test_in_a_compiled_graph(name):
    torch.compiler.reset()
    use, shapes = USES[name]
    model, twin = quantize_with_twin(nn.Sequential(Reader(use, **shapes)))
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_equals_twin(compiled, twin, torch.randn(3, 16))


def test_half_step_bound_and_names():
    model = Reader(lambda m, x: x, w=(4, 3, 16), weight=(5, 16))
    floats = {name: p.detach().clone() for name, p in model.named_parameters()}
    w8a16.quantize(model)
    assert list(model.state_dict()) == ["w_int8_weights", "w_scales", "int8_weights", "scales"]
    assert model.layouts == {"w": Layout(lead=2), "weight": Layout()}
    for name, weight in floats.items():
        codes, scales = model.codes_of(name).flatten(0, -2), model.scales_of(name).flatten()
        assert error_in_half_steps(weight.flatten(0, -2), codes, scales).max() <= 1 + HALF_STEP_SLACK
        assert getattr(model, name).shape == weight.shape


CONTAINERS = {
    "list": lambda: nn.ParameterList([torch.randn(4, 16), torch.randn(2, 3, 16), torch.randn(16)]),
    "dict": lambda: nn.ParameterDict(
        {"a": torch.randn(4, 16), "b": torch.randn(2, 3, 16), "c": torch.randn(16)}
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_containers_of_parameters(container, copied):
    model = nn.ModuleDict({"inner": CONTAINERS[container]()})
    plan = w8a16.plan(model)
    assert [row.reason for row in plan.rows] == ["stored", "stored"]
    model = copied(w8a16.quantize(model))
    inner, twin = model["inner"], make_twin(model)["inner"]
    assert len(inner) == len(twin) == 3
    assert type(twin) in (nn.ParameterList, nn.ParameterDict)
    keys = range(3) if container == "list" else ["a", "b", "c"]
    for key in keys:
        assert torch.equal(inner[key] + 0, twin[key] + 0)
    assert [tuple(p.shape) for p in (inner if container == "list" else inner.values())] == [
        (4, 16),
        (2, 3, 16),
        (16,),
    ]
    if container == "dict":
        assert list(inner.keys()) == list(twin.keys()) == ["a", "b", "c"]
        assert "a" in inner


@pytest.mark.parametrize("pattern", ["0.w", "*.w", "*w"])
def test_one_parameter_can_be_excluded_by_its_name(pattern):
    use, shapes = USES["two of them"]
    model = nn.Sequential(Reader(use, **shapes))
    weight, x = model[0].w, torch.randn(3, 16)
    rows = {row.name: row.reason for row in w8a16.plan(model, exclude=pattern).rows}
    assert rows == {"0.w": "excluded", "0.v": "stored"}
    model, twin = quantize_with_twin(model, exclude=pattern)
    assert model[0].w is weight
    assert [name for name, _ in model.named_parameters()] == ["0.w"]
    assert_equals_twin(model, twin, x)
    model(x).sum().backward()
    assert weight.grad.norm() > 0


def test_one_parameter_can_be_included_by_its_name():
    use, shapes = USES["two of them"]
    model = w8a16.quantize(nn.Sequential(Reader(use, **shapes)), include="0.v")
    assert model[0].layouts.keys() == {"v"}
    assert isinstance(model[0].w, nn.Parameter)


def test_a_parameter_that_stays_float_can_be_assigned():
    model = w8a16.quantize(Reader(*USES["two of them"][:1], w=(16, 8), v=(8, 6)), exclude="w")
    replacement = nn.Parameter(torch.zeros(16, 8))
    model.w = replacement
    assert model.w is replacement
    assert model(torch.randn(3, 16)).eq(0).all()
    with pytest.raises(w8a16.errors.ModuleError, match="the v of a W8A16Reader is read-only"):
        model.v = nn.Parameter(torch.zeros(8, 6))


class Mixed(nn.Module):
    """Layers, a table, and a bias of two dimensions."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 10, 16))
        self.position_bias = nn.Parameter(torch.randn(3, 16))
        self.layer = nn.Linear(16, 16)
        self.scale = nn.Parameter(torch.randn(16))

    def forward(self, x):
        return self.layer(x + self.position[0, : x.shape[0]] + self.position_bias) * self.scale


@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("exclude", [None, "layer", "position"])
def test_round_trip_through_a_file(tmp_path, skeleton, exclude):
    model, x = w8a16.quantize(Mixed(), exclude=exclude), torch.randn(3, 16)
    other = w8a16.load(on_meta(Mixed) if skeleton else Mixed(), w8a16.save(model, tmp_path))
    assert_same_model(other, model)
    assert torch.equal(other(x), model(x))
    assert_equals_twin(other, make_twin(model), x)


def test_a_strict_state_dict_of_another_model():
    model, other = w8a16.quantize(Mixed()), w8a16.quantize(Mixed())
    result = other.load_state_dict(model.state_dict(), strict=True)
    assert result.missing_keys == result.unexpected_keys == []
    assert_unchanged(other, snapshot(model))
    with pytest.raises(RuntimeError, match="position: found a float weight for a W8A16Mixed"):
        other.load_state_dict(Mixed().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moves(dtype):
    model = w8a16.quantize(Mixed())
    codes, scales = model.position_int8_weights.clone(), model.position_scales.clone()
    model.to(dtype)
    assert torch.equal(model.position_int8_weights, codes)
    assert torch.equal(model.position_scales, scales)
    assert model.position.dtype == model.position_bias.dtype == dtype
    assert model(torch.randn(3, 16, dtype=dtype)).dtype == dtype


def test_the_root_with_hooks_and_its_flag():
    model, calls = Mixed().train(), []
    model.register_forward_hook(lambda *arguments: calls.append(1))
    w8a16.quantize(model)
    assert isinstance(model, (Mixed, QuantizedModule))
    assert model.training
    model(torch.randn(3, 16))
    assert calls == [1]
    assert type(model.layer) is W8A16LinearLayer


def test_a_module_at_two_places_is_converted_once():
    inner = Reader(USES["matmul"][0], w=(16, 16))
    model, twin = quantize_with_twin(nn.Sequential(inner, nn.GELU(), inner))
    assert model[0] is model[2]
    assert twin[0] is twin[2]
    with torch.no_grad():
        assert_equals_twin(model, twin, torch.randn(3, 16))


def test_assigning_and_initializing_as_model_code_does():
    """`_init_weights` of transformers, run after the conversion."""
    model = w8a16.quantize(Mixed())
    nn.init.trunc_normal_(model.position, std=0.02)
    assert model.position.std() < 0.05
    with torch.no_grad():
        model.position.copy_(torch.ones(1, 10, 16))
        model.position[:, 3:].zero_()
    assert model.position[0, :3].eq(1).all()
    assert model.position.sum() == 3 * 16
