"""A quantized model is one graph for torch.compile and torch.export, with no break at our op."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_same_outputs, call, make_twin, mlp, quantize_with_twin


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_one_graph(backend, dynamic):
    torch.compiler.reset()
    model, twin = quantize_with_twin(mlp())
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=backend)
    for rows in (3, 7):
        assert_equals_twin(compiled, twin, torch.randn(rows, 16))


@pytest.mark.slow
def test_inductor_forward_and_backward():
    torch.compiler.reset()
    model, twin = quantize_with_twin(mlp())
    compiled = torch.compile(model, fullgraph=True)
    x, grads = torch.randn(5, 16), []
    for module in (compiled, twin):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        grads.append(leaf.grad)
    assert_same_outputs(grads[:1], grads[1:], 1e-5)


def test_gradients_through_the_compiled_graph():
    torch.compiler.reset()
    model, twin = quantize_with_twin(mlp())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, grads = torch.randn(5, 16), []
    for module in (compiled, twin):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        grads.append(leaf.grad)
    assert_same_outputs(grads[:1], grads[1:], 1e-5)


def test_quantizing_a_model_that_is_compiled_already():
    """The graph of the float model must not be used again."""
    torch.compiler.reset()
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(3, 16)
    float_output = compiled(x)
    w8a16.quantize(compiled)
    assert type(model[0]) is w8a16.W8A16LinearLayer
    assert not torch.equal(compiled(x), float_output)
    assert torch.equal(compiled(x), model(x))


@pytest.mark.parametrize("dynamic", [False, True])
def test_export(dynamic):
    model, twin = quantize_with_twin(mlp().eval())
    shapes = ({0: torch.export.Dim("rows", min=2, max=64)},) if dynamic else None
    program = torch.export.export(model, (torch.randn(3, 16),), dynamic_shapes=shapes)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("w8a16.linear.default") == 2
    assert set(program.state_dict) == {*model.state_dict(), "0.dtype_probe"}  # which has no elements
    assert_equals_twin(program.module(), twin, torch.randn(9 if dynamic else 3, 16))


def test_an_exported_program_survives_its_file(tmp_path):
    model, x = w8a16.quantize(mlp().eval()), torch.randn(3, 16)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert_same_outputs(call(loaded, x), call(model, x), 1e-7)


def test_the_weight_property_inside_a_graph():
    torch.compiler.reset()

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x):
            return self.layer(x.to(self.layer.weight.dtype)) @ self.layer.weight

    model = w8a16.quantize(Reader())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_equals_twin(compiled, make_twin(model), torch.randn(3, 16))
