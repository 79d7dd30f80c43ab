"""`layer.weight` costs what is asked of it: nothing, the codes in use, or a dequantized weight."""

import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import nn
from torch.nn import functional

import w8a16
from support.twins import quantized_linear
from w8a16.layers.float_weight import FloatWeight


@pytest.fixture
def dequantized(monkeypatch):
    """The number of elements of each weight that was dequantized, in order."""
    sizes = []
    original = FloatWeight._materialize

    def counted(self):
        if self._base is None and self._value is None:
            sizes.append(self._codes.numel())
        return original(self)

    monkeypatch.setattr(FloatWeight, "_materialize", counted)
    return sizes


def exact(layer, dtype=None):
    """The float weight, worked out by hand."""
    wide = layer.int8_weights.double() * layer.scales.double()[:, None]
    return wide.float().to(dtype or layer.weight_dtype)


METADATA = {
    "dtype": lambda w: w.dtype == torch.bfloat16,
    "device": lambda w: w.device == torch.device("cpu") and w.device.type == "cpu",
    "shape": lambda w: w.shape == (32, 16) and w.size() == (32, 16) and w.size(0) == 32,
    "dimensions": lambda w: w.dim() == w.ndim == w.ndimension() == 2,
    "elements": lambda w: w.numel() == w.nelement() == torch.numel(w) == 512 and len(w) == 32,
    "bytes": lambda w: w.element_size() == w.itemsize == 2 and w.nbytes == 1024,
    "stride": lambda w: w.stride() == (16, 1) and w.stride(0) == 16 and w.is_contiguous(),
    "kind": lambda w: w.is_floating_point() and torch.is_floating_point(w) and not w.is_complex(),
    "place": lambda w: w.is_cpu and not (w.is_cuda or w.is_meta or w.is_sparse or w.is_quantized),
    "layout": lambda w: w.layout == torch.strided and w.get_device() == -1 and not w.is_nested,
    "gradient": lambda w: w.is_leaf and w.grad is None and w.grad_fn is None and not w.requires_grad,
    "class": lambda w: isinstance(w, torch.Tensor) and isinstance(w, nn.Parameter),
    "hash": lambda w: hash(w) == hash(w) and w in {w},
    "data": lambda w: w.data.dtype == torch.bfloat16 and w.data.shape == w.detach().shape == (32, 16),
    "attribute": lambda w: hasattr(w, "T") and not hasattr(w, "quant_state"),
}


@pytest.mark.parametrize("question", METADATA)
def test_questions_about_it_need_no_values(question, dequantized):
    layer = quantized_linear(dtype=torch.bfloat16)
    assert METADATA[question](layer.weight)
    if question != "attribute":  # reading an attribute such as T is a view
        assert dequantized == []


@pytest.mark.parametrize(
    "question", [question for question in METADATA if question not in ("place", "layout")]
)
def test_the_answers_are_those_of_a_float_parameter(question):
    weight = nn.Parameter(torch.randn(32, 16, dtype=torch.bfloat16), requires_grad=False)
    assert METADATA[question](weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_the_linear_function_gives_the_bits_of_the_layer(dtype, rows, dequantized):
    layer, x = quantized_linear(), torch.randn(rows, 16, dtype=dtype)
    layer = layer.to(dtype)
    assert torch.equal(functional.linear(x, layer.weight, layer.bias), layer(x))
    assert torch.equal(functional.linear(x, weight=layer.weight, bias=layer.bias), layer(x))
    assert torch.equal(
        functional.linear(x, layer.weight), layer(x) if layer.bias is None else without_bias(layer, x)
    )
    assert torch.equal(functional.linear(x, layer.weight.data), functional.linear(x, layer.weight))
    assert dequantized == []


def without_bias(layer, x):
    plain = copy.deepcopy(layer)
    plain.bias = None
    return plain(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_embedding_function_gives_the_bits_of_the_layer(dtype, dequantized):
    table, ids = (
        w8a16.quantize(nn.Embedding(32, 16, padding_idx=0, dtype=dtype)),
        torch.tensor([[0, 31], [5, 5]]),
    )
    assert torch.equal(functional.embedding(ids, table.weight), table(ids))
    assert torch.equal(functional.embedding(ids, table.weight, padding_idx=0), table(ids))
    assert torch.equal(functional.embedding(ids.int(), table.weight.data), table(ids))
    assert dequantized == []
    functional.embedding(ids, table.weight, max_norm=0.5)
    assert dequantized == [512]


def test_gradients_to_the_input_of_the_linear_function():
    layer, x = quantized_linear(bias=False), torch.randn(3, 16, requires_grad=True)
    functional.linear(x, layer.weight).square().sum().backward()
    leaf = x.detach().clone().requires_grad_()
    functional.linear(leaf, exact(layer)).square().sum().backward()
    torch.testing.assert_close(x.grad, leaf.grad, rtol=1e-5, atol=1e-5)


class Stack(nn.Module):
    """Weights of several layers in one parameter, as experts have them."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 32, 16))


def test_a_part_of_a_stack_uses_its_codes_alone(dequantized):
    model, x = w8a16.quantize(Stack()), torch.randn(3, 16)
    for index in (0, 3, -1, torch.tensor(2)):
        layer = w8a16.W8A16LinearLayer(16, 32, bias=False)
        layer.load_state_dict({"int8_weights": model.w_int8_weights[index], "scales": model.w_scales[index]})
        assert torch.equal(functional.linear(x, model.w[index]), layer(x))
    assert dequantized == []
    assert model.w[1].sum() != 0
    assert dequantized == [512]


COMPUTE = {
    "sum": lambda w: w.sum(),
    "plus": lambda w: w + 1,
    "reflected": lambda w: 2 - w,
    "transposed": lambda w: w.t(),
    "T": lambda w: w.T.contiguous(),
    "matmul": lambda w: torch.ones(3, 32) @ w,
    "einsum": lambda w: torch.einsum("nk,mk->mn", w, torch.ones(2, 16)),
    "index": lambda w: w[3],
    "slice": lambda w: w[1:5, ::2],
    "mask": lambda w: w[w > 0],
    "view": lambda w: w.view(2, 16, 16),
    "unsqueeze": lambda w: w.unsqueeze(0).expand(3, 32, 16),
    "cat": lambda w: torch.cat([w, w]),
    "stack": lambda w: torch.stack((w, w), dim=1),
    "float": lambda w: w.float(),
    "double": lambda w: w.double(),
    "to": lambda w: w.to(torch.float64),
    "to device": lambda w: w.to("cpu"),
    "type": lambda w: w.type(torch.float64),
    "clone": lambda w: w.clone(),
    "contiguous": lambda w: w.contiguous().clone(),
    "detach": lambda w: w.detach().clone(),
    "norm": lambda w: w.norm(dim=1),
    "softmax": lambda w: functional.softmax(w, dim=-1),
    "interpolate": lambda w: functional.interpolate(w[None, None], (8, 8)),
    "chunk": lambda w: torch.cat(w.chunk(4)[::-1]),
    "where": lambda w: torch.where(w > 0, w, torch.zeros(())),
    "iterate": lambda w: torch.stack(list(w)),
    "split": lambda w: w.split(8)[1],
    "new": lambda w: w.new_zeros(3),
    "like": lambda w: torch.zeros_like(w),
    "out": lambda w: torch.add(w, 1, out=torch.empty(32, 16)),
    "numpy": lambda w: torch.from_numpy(w.numpy().copy()),
    "list": lambda w: torch.tensor(w.tolist()),
    "item": lambda w: torch.tensor(w[2, 3].item()),
    "compare": lambda w: (w == w).float(),
    "max": lambda w: w.max(dim=1).values,
    "linear of the values": lambda w: functional.linear(w, torch.ones(4, 16)),
}


@pytest.mark.parametrize("name", COMPUTE)
def test_everything_else_computes_with_the_dequantized_weight(name):
    layer = quantized_linear()
    result, expected = COMPUTE[name](layer.weight), COMPUTE[name](exact(layer))
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    torch.testing.assert_close(result + 0, expected + 0, rtol=1e-6, atol=1e-6)


def test_it_is_dequantized_once_and_only_while_it_is_held(dequantized):
    layer = quantized_linear()
    weight = layer.weight
    (weight.sum(), weight + 1, weight.mean())
    assert dequantized == [512]
    _ = layer.weight.sum()
    assert dequantized == [512, 512]
    assert not any(buffer.is_floating_point() and buffer.dim() > 1 for buffer in layer.buffers())


def through_torch(weight):
    buffer = io.BytesIO()
    torch.save({"w": weight}, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)["w"]


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda w: pickle.loads(pickle.dumps(w)),
    "torch.save": through_torch,
    "safetensors": lambda w: load_bytes(save_bytes({"w": w}))["w"],
    "clone": lambda w: w.clone(),
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("part", [lambda w: w, lambda w: w[1:5]], ids=["whole", "view"])
def test_a_copy_is_an_ordinary_tensor_with_memory_of_its_own(copied, part):
    layer = quantized_linear()
    result = COPIES[copied](part(layer.weight))
    assert type(result) in (torch.Tensor, nn.Parameter)
    assert torch.equal(result, part(exact(layer)))
    before = layer.int8_weights.clone()
    result.data.zero_()
    assert torch.equal(layer.int8_weights, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inside_every_gradient_mode(mode):
    layer, x = quantized_linear(), torch.randn(3, 16)
    with mode():
        assert torch.equal(layer.weight + 0, exact(layer))
        assert torch.equal(functional.linear(x, layer.weight, layer.bias), layer(x))
        assert layer.weight.dtype == torch.float32
    held = layer.weight
    with torch.inference_mode():
        _ = held.sum()
    leaf = x.clone().requires_grad_()
    (leaf @ held.t()).sum().backward()  # what inference mode made could not be saved for this
    assert leaf.grad.norm() > 0


def test_under_vmap():
    layer, x = quantized_linear(), torch.randn(4, 3, 16)
    by_hand = torch.func.vmap(lambda part: part @ layer.weight.t())(x)
    torch.testing.assert_close(by_hand, x @ exact(layer).T, rtol=1e-5, atol=1e-5)
    over_rows = torch.func.vmap(lambda row: row * 2)(layer.weight)
    assert torch.equal(over_rows, exact(layer) * 2)
    mapped = torch.func.vmap(lambda part: functional.linear(part, layer.weight, layer.bias))(x)
    torch.testing.assert_close(mapped, layer(x), rtol=1e-5, atol=1e-5)


class Reader(nn.Module):
    """Reads the weight in the ways that models do."""

    def __init__(self):
        super().__init__()
        self.layer, self.table = nn.Linear(16, 16), nn.Embedding(8, 16)
        self.w = nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, x):
        x = x.to(self.layer.weight.dtype)
        if self.layer.weight.device != x.device or self.layer.weight.shape[0] != 16:
            return x
        x = functional.linear(x, self.layer.weight, self.layer.bias) + self.table.weight[3]
        return x @ self.w[0] + functional.linear(x, self.w[1]) + self.layer.weight.abs().mean()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_in_a_compiled_graph(backend):
    torch.compiler.reset()
    model, x = w8a16.quantize(Reader()), torch.randn(3, 16)
    assert w8a16.plan(model).coverage == 1.0
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_in_an_exported_program():
    model, x = w8a16.quantize(Reader().eval()), torch.randn(3, 16)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)
    assert "w" not in program.state_dict


class TestMeta:
    @pytest.fixture
    def layer(self):
        return quantized_linear(dtype=torch.bfloat16).to("meta")

    def test_it_is_a_meta_tensor_of_the_right_dtype(self, layer):
        weight = layer.weight
        assert (weight.is_meta, weight.device.type, weight.dtype) == (True, "meta", torch.bfloat16)
        assert weight.shape == (32, 16)
        assert (weight + 1).is_meta
        assert weight.float().dtype == torch.float32

    def test_functions(self, layer):
        x = torch.empty(3, 16, dtype=torch.bfloat16, device="meta")
        assert functional.linear(x, layer.weight, layer.bias).shape == (3, 32)
        assert (x @ layer.weight.t()).shape == (3, 32)

    def test_initialization_does_nothing(self, layer):
        nn.init.normal_(layer.weight)
        layer.weight.data.zero_()
        assert layer.int8_weights.is_meta
        assert layer.scales.dtype == torch.float32
