"""The private native op: the bits of the complete one, or None where the complete one must answer."""

import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from support.numerics import LAYOUTS, integer_problem, name_of, random_problem
from w8a16.kernels import apply_linear, linear, native_ops
from w8a16.kernels.native_ops import try_linear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def arguments(dtype=torch.float32, m=3):
    return random_problem(m, 65, 33, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (2, 1, 3), (0,), (2, 0, 3)])
def test_it_is_the_complete_op(batch, dtype):
    x, q, scales, bias = arguments(dtype, m=max(1, torch.Size(batch).numel()))
    x = x[: torch.Size(batch).numel()].reshape(*batch, 65)
    for b in (bias, None):
        y = try_linear(x, q, scales, b)
        assert y is not None
        assert (y.shape, y.dtype, y.is_contiguous()) == ((*batch, 33), dtype, True)
        assert torch.equal(y, linear(x, q, scales, b))
        assert not y.requires_grad


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_right_or_declined(layout, dtype):
    problem, expected = integer_problem(7, 65, 33, dtype)
    x = LAYOUTS[layout](problem.input)
    y = try_linear(x, *problem[1:])
    if layout in ("strided columns", "transposed", "expanded columns"):
        assert y is None
    else:
        assert torch.equal(y, linear(x, *problem[1:]))
    if not layout.startswith("expanded"):
        assert torch.equal(linear(x, *problem[1:]), expected)


def test_the_last_token_of_a_batch_needs_no_copy():
    x, q, scales, bias = arguments(m=12)
    states = x.view(3, 4, 65)
    assert torch.equal(try_linear(states[:, -1], q, scales, bias), linear(x[3::4], q, scales, bias))
    assert torch.equal(try_linear(states[:, -1:], q, scales, bias), linear(x[3::4], q, scales, bias)[:, None])


def test_mixed_float_dtypes_of_scales_and_bias():
    x, q, scales, bias = arguments()
    for s in (scales.half(), scales.bfloat16()):
        for b in (bias.half(), bias.bfloat16(), None):
            assert torch.equal(try_linear(x, q, s, b), linear(x, q, s, b))


@pytest.mark.parametrize(
    "change",
    {
        "float64 input": lambda x, q, s, b: (x.double(), q, s, b),
        "integer input": lambda x, q, s, b: (x.long(), q, s, b),
        "complex input": lambda x, q, s, b: (x + 0j, q, s, b),
        "float64 scales": lambda x, q, s, b: (x, q, s.double(), b),
        "float64 bias": lambda x, q, s, b: (x, q, s, b.double()),
        "wrong width": lambda x, q, s, b: (x[:, 1:], q, s, b),
        "scalar input": lambda x, q, s, b: (x[0, 0], q, s, b),
        "float codes": lambda x, q, s, b: (x, q.float(), s, b),
        "three-dimensional codes": lambda x, q, s, b: (x, q[None], s, b),
        "strided codes": lambda x, q, s, b: (x, torch.stack([q, q], -1)[..., 0], s, b),
        "short scales": lambda x, q, s, b: (x, q, s[1:], b),
        "scales in a matrix": lambda x, q, s, b: (x, q, s[None], b),
        "strided scales": lambda x, q, s, b: (x, q, torch.stack([s, s], -1)[:, 0], b),
        "long bias": lambda x, q, s, b: (x, q, s, torch.cat([b, b])),
        "meta": lambda x, q, s, b: (x.to("meta"), q.to("meta"), s.to("meta"), b.to("meta")),
        "meta input": lambda x, q, s, b: (x.to("meta"), q, s, b),
        "seventeen dimensions": lambda x, q, s, b: (x[(None,) * 15], q, s, b),
    }.items(),
    ids=lambda item: item[0],
)
def test_it_declines(change):
    assert try_linear(*change[1](*arguments())) is None


def test_it_declines_for_another_backend(monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    assert try_linear(*arguments()) is None
    monkeypatch.setenv("W8A16_BACKEND", "nonsense")
    assert try_linear(*arguments()) is None
    monkeypatch.setenv("W8A16_BACKEND", "cpu-native")
    assert try_linear(*arguments()) is not None
    monkeypatch.setenv("W8A16_BACKEND", "")
    assert try_linear(*arguments()) is not None


def test_it_declines_under_autocast_tracing_transforms_and_modes():
    x, q, scales, bias = arguments()
    with torch.autocast("cpu", torch.bfloat16):
        assert try_linear(x, q, scales, bias) is None
        assert apply_linear(x, q, scales, bias).dtype == torch.bfloat16

    declined = []

    def probe(row):
        declined.append(try_linear(row, q, scales, bias) is None)
        return apply_linear(row, q, scales, bias)

    rows = torch.func.vmap(probe)(x)
    assert torch.allclose(rows, linear(x, q, scales, bias), atol=1e-5)
    torch.func.jvp(probe, (x,), (x,))
    torch.func.grad(lambda v: probe(v).sum())(x)
    assert declined == [True, True, True]

    class Seen(TorchDispatchMode):
        ops = ()

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            self.ops = (*self.ops, str(op))
            return op(*args, **(kwargs or {}))

    with Seen() as seen:
        apply_linear(x, q, scales, bias)
    assert seen.ops == ("w8a16.linear.default",)


def test_fake_tensors_outside_their_mode():
    # Their data pointer is null: the kernel must never see them.
    mode = torch._subclasses.FakeTensorMode()
    fake = [mode.from_tensor(t) for t in arguments()]
    assert try_linear(*fake) is None
    assert apply_linear(*fake).shape == (3, 33)


@pytest.mark.parametrize("trained", ["input", "scales", "bias"])
def test_gradients_go_the_complete_way(trained):
    tensors = dict(zip(("input", "int8_weights", "scales", "bias"), arguments(), strict=True))
    tensors[trained].requires_grad_()
    y = apply_linear(**tensors)
    y.sum().backward()
    assert tensors[trained].grad.norm() > 0
    with torch.no_grad():
        assert not apply_linear(**tensors).requires_grad


def test_forward_mode_gradients_are_not_lost():
    x, q, scales, bias = arguments()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        y = apply_linear(dual, q, scales, bias)
        tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
    assert torch.allclose(tangent, linear(torch.ones_like(x), q, scales, None), rtol=1e-4, atol=1e-4)


def test_inference_mode_and_lazily_negated_input():
    x, q, scales, bias = arguments()
    with torch.inference_mode():
        y = apply_linear(x, q, scales, bias)
        assert y.is_inference()
    negated = torch._neg_view(x)
    assert torch.equal(apply_linear(negated, q, scales, bias), linear(-x, q, scales, bias))


def test_subclasses_keep_their_behaviour():
    class Logged(torch.Tensor):
        calls = 0

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.calls += 1
            return super().__torch_function__(function, types, args, kwargs or {})

    x, q, scales, bias = arguments()
    y = apply_linear(x.as_subclass(Logged), q, scales, bias)
    assert Logged.calls > 0
    assert torch.equal(y.as_subclass(torch.Tensor), linear(x, q, scales, bias))


def test_eight_threads_through_the_native_op():
    problems = [random_problem(m, 515, 257, dtype) for m in (1, 5, 40) for dtype in DTYPES]
    expected = [try_linear(*p) for p in problems]
    wrong, start = [], threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(5):
            wrong.extend(
                p for p, e in zip(problems, expected, strict=True) if not torch.equal(try_linear(*p), e)
            )

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_without_a_library_the_complete_op_answers(monkeypatch):
    monkeypatch.setattr(native_ops, "_linear", None)
    monkeypatch.setattr(native_ops, "_are_known", True)
    problem = arguments()
    assert try_linear(*problem) is None
    assert apply_linear(*problem).shape == (3, 33)
