"""What `torch.compile` and `torch.export` need: opcheck, fake results, one graph, dynamic sizes."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

from support.numerics import DTYPES, name_of, random_codes, random_problem, seeded
from w8a16.errors import DtypeError, ShapeError
from w8a16.kernels import linear, linear_input_grad, w8_a16_forward

INPUTS = {
    "rows": lambda: torch.randn(3, 8),
    "one row": lambda: torch.randn(8),
    "no rows": lambda: torch.randn(0, 8),
    "batch": lambda: torch.randn(2, 3, 8),
    "transposed": lambda: torch.randn(8, 3).T,
    "transposed batch": lambda: torch.randn(2, 8, 3).transpose(1, 2),
    "swapped batch": lambda: torch.randn(3, 2, 8).transpose(0, 1),
    "permuted": lambda: torch.randn(5, 8, 3, 2).permute(2, 0, 3, 1),
    "expanded": lambda: torch.randn(3, 8).expand(4, 3, 8),
    "strided": lambda: torch.randn(3, 16)[:, ::2],
}


def weight(n=4, k=8):
    return random_codes(n, k, seeded(0)), torch.rand(n, generator=seeded(1)) + 0.1


@pytest.mark.parametrize("requires_grad", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("layout", ["rows", "one row", "batch", "transposed batch", "expanded"])
def test_opcheck(layout, requires_grad):
    q, scales = weight()
    x = INPUTS[layout]().requires_grad_(requires_grad)
    vectors = scales.requires_grad_(requires_grad), torch.randn(4, requires_grad=requires_grad)
    opcheck(linear, (x, q, *vectors))
    opcheck(linear, (x, q, vectors[0], None))
    opcheck(linear_input_grad, (x, *weight(8, 4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=name_of)
def test_opcheck_in_other_dtypes(dtype):
    opcheck(linear, (torch.randn(3, 8, dtype=dtype, requires_grad=True), *weight(), None))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", INPUTS)
def test_fake_results_look_like_real_ones(layout, dtype):
    x = INPUTS[layout]().to(dtype)
    for op, rest in ((linear, (*weight(), None)), (linear_input_grad, weight(8, 5))):
        real = op(x, *rest)
        mode = FakeTensorMode()
        fake = op(mode.from_tensor(x), *(None if t is None else mode.from_tensor(t) for t in rest))
        meta = op(x.to("meta"), *(None if t is None else t.to("meta") for t in rest))
        for stand_in in (fake, meta):
            assert stand_in.shape == real.shape
            assert stand_in.dtype == real.dtype
            assert stand_in.stride() == real.stride()
        assert fake.device == real.device
        assert meta.is_meta


def test_fake_tensors_get_the_same_errors():
    q, scales = (t.to("meta") for t in weight())
    with pytest.raises(ShapeError, match=r"^input: expected a last dimension of 8 for a weight \[4, 8\]"):
        linear(torch.empty(3, 7, device="meta"), q, scales, None)
    with pytest.raises(DtypeError, match=r"^input: expected float16"):
        linear(torch.empty(3, 8, dtype=torch.int32, device="meta"), q, scales, None)
    with pytest.raises(ShapeError, match=r"^grad_output: expected a last dimension of 4"):
        linear_input_grad(torch.empty(3, 8, device="meta"), q, scales)


def between_elementwise_operations(x, q, scales, bias):
    return w8_a16_forward(q, x * 2, scales, bias).relu()


def check_compiled(compiled):
    """The same bits as without compilation, forward and backward, for sizes never seen before."""
    for m, k, n, dtype in [(3, 8, 4, torch.float32), (5, 8, 4, torch.float32), (9, 16, 7, torch.float32)]:
        problem = random_problem(m, k, n, dtype)
        x = problem.input.clone().requires_grad_()
        expected = between_elementwise_operations(x, *problem[1:])
        (expected_grad,) = torch.autograd.grad(expected.sum(), x)
        actual = compiled(x, *problem[1:])
        (actual_grad,) = torch.autograd.grad(actual.sum(), x)
        assert torch.equal(actual, expected)
        assert torch.equal(actual_grad, expected_grad)
        assert expected.norm() > 0


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_one_graph_with_dynamic_sizes():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    check_compiled(
        torch.compile(between_elementwise_operations, fullgraph=True, dynamic=True, backend=counter)
    )
    assert counter.frame_count == 1  # no recompilation for a new size


@pytest.mark.slow
def test_inductor():
    check_compiled(torch.compile(between_elementwise_operations, fullgraph=True, dynamic=True))


def test_autocast_inside_a_graph():
    problem = random_problem(3, 8, 4, torch.float32)

    _, codes, scales, bias = problem  # taken apart outside: torch 2.8 cannot slice a named tuple in a graph

    def function(x):
        with torch.autocast("cpu", torch.bfloat16):
            return linear(x, codes, scales, bias)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(problem.input)
    assert compiled.dtype == torch.bfloat16
    assert torch.equal(compiled, function(problem.input))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        codes, scales = weight()
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def forward(self, x):
        return w8_a16_forward(self.codes, x, self.scales).relu()


def test_export_keeps_the_op_and_dynamic_rows():
    net = Net()
    program = torch.export.export(
        net, (torch.randn(3, 8),), dynamic_shapes={"x": {0: torch.export.Dim("rows")}}
    )
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.w8a16.linear.default in targets
    for rows in (3, 11):
        x = torch.randn(rows, 8)
        assert torch.equal(program.module()(x), net(x))


def test_an_exported_program_can_be_saved(tmp_path):
    net, x = Net(), torch.randn(3, 8)
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
    assert torch.equal(torch.export.load(tmp_path / "net.pt2").module()(x), net(x))


def test_decomposition_for_inference_keeps_the_op():
    program = torch.export.export(Net(), (torch.randn(3, 8),)).run_decompositions()
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.w8a16.linear.default in targets
