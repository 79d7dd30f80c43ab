"""The exact text and type of every complaint about the arguments of the grouped ops."""

import pytest
import torch

from w8a16.errors import DtypeError, IndexRangeError, ShapeError, W8A16Error
from w8a16.kernels import grouped_linear, grouped_linear_input_grad

op = torch.ops.w8a16.grouped_linear.default
X, Q, S = torch.ones(5, 8), torch.ones(2, 4, 8, dtype=torch.int8), torch.ones(2, 4)
BOUNDS = torch.tensor([0, 2, 5])

CASES = {
    "integer input": (
        (X.int(), Q, S, None, BOUNDS),
        DtypeError,
        "input: expected float16, bfloat16, float32 or float64, got torch.int32 (weights [2, 4, 8])",
    ),
    "wrong width": (
        (X[:, 1:], Q, S, None, BOUNDS),
        ShapeError,
        "input: expected [T, 8] for weights [2, 4, 8], got [5, 7]",
    ),
    "a batch": (
        (X[None], Q, S, None, BOUNDS),
        ShapeError,
        "input: expected [T, 8] for weights [2, 4, 8], got [1, 5, 8]",
    ),
    "one row": (
        (X[0], Q, S, None, BOUNDS),
        ShapeError,
        "input: expected [T, 8] for weights [2, 4, 8], got [8]",
    ),
    "float weight": (
        (X, Q.float(), S, None, BOUNDS),
        DtypeError,
        "weight: expected int8 codes, got torch.float32; quantize the float weight first",
    ),
    "one weight": (
        (X, Q[0], S, None, BOUNDS),
        ShapeError,
        "weight: expected [E, N, K] with three dimensions, got [4, 8]",
    ),
    "integer scales": (
        (X, Q, S.int(), None, BOUNDS),
        DtypeError,
        "scales: expected a float dtype, got torch.int32",
    ),
    "scales of one weight": (
        (X, Q, S[0], None, BOUNDS),
        ShapeError,
        "scales: expected [2, 4] for weights [2, 4, 8], got [4]",
    ),
    "scales are not broadcast": (
        (X, Q, S[:1], None, BOUNDS),
        ShapeError,
        "scales: expected [2, 4] for weights [2, 4, 8], got [1, 4]",
    ),
    "integer bias": (
        (X, Q, S, S.long(), BOUNDS),
        DtypeError,
        "bias: expected a float dtype, got torch.int64",
    ),
    "bias of another length": (
        (X, Q, S, S[:, 1:], BOUNDS),
        ShapeError,
        "bias: expected [2, 4] for weights [2, 4, 8], got [2, 3]",
    ),
    "int32 offsets": ((X, Q, S, None, BOUNDS.int()), DtypeError, "offsets: expected int64, got torch.int32"),
    "ends alone": ((X, Q, S, None, BOUNDS[1:]), ShapeError, "offsets: expected [3] for 2 weights, got [2]"),
    "offsets in a row": (
        (X, Q, S, None, BOUNDS[None]),
        ShapeError,
        "offsets: expected [3] for 2 weights, got [1, 3]",
    ),
    "two devices": (
        (X, Q, S, S, BOUNDS.to("meta")),
        DtypeError,
        "expected all tensors on one device, got input on cpu, weight on cpu, scales on cpu, bias on cpu, "
        "offsets on meta",
    ),
    "decreasing offsets": (
        (X, Q, S, None, torch.tensor([0, 4, 3])),
        IndexRangeError,
        "offsets: expected 0 to 5, nondecreasing, got 3 at [2] after 4",
    ),
    "offsets beyond the rows": (
        (X, Q, S, None, torch.tensor([0, 4, 6])),
        IndexRangeError,
        "offsets: expected 0 to 5, nondecreasing, got 6 at [2] after 4",
    ),
    "offsets beyond the rows and back": (
        (X, Q, S, None, torch.tensor([0, 2**40, 5])),
        IndexRangeError,
        "offsets: expected 0 to 5, nondecreasing, got 1099511627776 at [1] after 0",
    ),
    "negative offsets": (
        (X, Q, S, None, torch.tensor([-1, 4, 5])),
        IndexRangeError,
        "offsets: expected 0 to 5, nondecreasing, got -1 at [0]",
    ),
}


def check(call, error, text):
    with pytest.raises(W8A16Error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == text


@pytest.mark.every_backend
@pytest.mark.parametrize("function", [grouped_linear, op])
@pytest.mark.parametrize("arguments, error, text", CASES.values(), ids=CASES)
def test_the_op(arguments, error, text, function):
    check(lambda: function(*arguments), error, text)


@pytest.mark.parametrize("mode", ["autocast", "training", "inference", "grad", "float64"])
@pytest.mark.parametrize(
    "case", ["wrong width", "scales of one weight", "int32 offsets", "decreasing offsets"]
)
def test_the_texts_do_not_depend_on_the_mode(case, mode):
    (x, q, scales, bias, offsets), error, text = CASES[case]

    def run():
        if mode == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                grouped_linear(x, q, scales, bias, offsets)
        elif mode == "inference":
            with torch.inference_mode():
                grouped_linear(x, q, scales, bias, offsets)
        elif mode == "training":
            grouped_linear(x.clone().requires_grad_(), q, scales, bias, offsets)
        elif mode == "float64":
            grouped_linear(x.double(), q, scales, bias, offsets)
        else:
            torch.func.grad(lambda rows: grouped_linear(rows, q, scales, bias, offsets).sum())(x)

    check(run, error, text)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (
            (X, Q, S, BOUNDS),
            ShapeError,
            "grad_output: expected [T, 4] for weights [2, 4, 8], got [5, 8]",
        ),
        (
            (X[:, :4].int(), Q, S, BOUNDS),
            DtypeError,
            "grad_output: expected float16, bfloat16, float32 or float64, got torch.int32 "
            "(weights [2, 4, 8])",
        ),
        (
            (X[:, :4], Q, S, torch.tensor([0, 6, 6])),
            IndexRangeError,
            "offsets: expected 0 to 5, nondecreasing, got 6 at [1] after 0",
        ),
    ],
)
def test_the_adjoint(arguments, error, text):
    check(lambda: grouped_linear_input_grad(*arguments), error, text)


def test_fake_tensors_get_the_same_errors_but_for_values():
    (x, q, scales, bias, offsets), error, text = CASES["wrong width"]
    check(
        lambda: grouped_linear(*(t if t is None else t.to("meta") for t in (x, q, scales, bias, offsets))),
        error,
        text,
    )
    values = CASES["decreasing offsets"][0]
    assert grouped_linear(*(t if t is None else t.to("meta") for t in values)).shape == (5, 4)
