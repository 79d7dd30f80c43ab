"""The exact text and type of every complaint about an argument."""

import pytest
import torch

from w8a16.errors import DtypeError, ShapeError, W8A16Error
from w8a16.kernels import linear, linear_input_grad, w8_a16_forward

X = torch.ones(3, 8)
Q = torch.ones(4, 8, dtype=torch.int8)
S = torch.ones(4)

CASES = {
    "integer input": (
        (X.int(), Q, S, None),
        DtypeError,
        "input: expected float16, bfloat16, float32 or float64, got torch.int32 (weight [4, 8])",
    ),
    "bool input": (
        (X.bool(), Q, S, None),
        DtypeError,
        "input: expected float16, bfloat16, float32 or float64, got torch.bool (weight [4, 8])",
    ),
    "complex input": (
        (X.to(torch.complex64), Q, S, None),
        DtypeError,
        "input: expected float16, bfloat16, float32 or float64, got torch.complex64 (weight [4, 8])",
    ),
    "float8 input": (
        (X.to(torch.float8_e4m3fn), Q, S, None),
        DtypeError,
        "input: expected float16, bfloat16, float32 or float64, got torch.float8_e4m3fn (weight [4, 8])",
    ),
    "wrong width": (
        (X[:, :7], Q, S, None),
        ShapeError,
        "input: expected a last dimension of 8 for a weight [4, 8], got [3, 7]",
    ),
    "wrong width of a batch": (
        (torch.ones(2, 3, 4), Q, S, None),
        ShapeError,
        "input: expected a last dimension of 8 for a weight [4, 8], got [2, 3, 4]",
    ),
    "width 1 is not broadcast": (
        (X[:, :1], Q, S, None),
        ShapeError,
        "input: expected a last dimension of 8 for a weight [4, 8], got [3, 1]",
    ),
    "0-d input": (
        (torch.tensor(1.0), Q, S, None),
        ShapeError,
        "input: expected a last dimension of 8 for a weight [4, 8], got []",
    ),
    "float weight": (
        (X, Q.float(), S, None),
        DtypeError,
        "weight: expected int8 codes, got torch.float32; quantize the float weight first",
    ),
    "uint8 weight": (
        (X, Q.to(torch.uint8), S, None),
        DtypeError,
        "weight: expected int8 codes, got torch.uint8; quantize the float weight first",
    ),
    "1-d weight": (
        (X, Q[0], S, None),
        ShapeError,
        "weight: expected [N, K] with two dimensions, got [8]",
    ),
    "3-d weight": (
        (X, Q[None], S, None),
        ShapeError,
        "weight: expected [N, K] with two dimensions, got [1, 4, 8]",
    ),
    "integer scales": (
        (X, Q, S.int(), None),
        DtypeError,
        "scales: expected a float dtype, got torch.int32",
    ),
    "complex scales": (
        (X, Q, S.to(torch.complex64), None),
        DtypeError,
        "scales: expected a float dtype, got torch.complex64",
    ),
    "integer bias": (
        (X, Q, S, S.long()),
        DtypeError,
        "bias: expected a float dtype, got torch.int64",
    ),
    "too few scales": (
        (X, Q, S[:3], None),
        ShapeError,
        "scales: expected [4] for a weight [4, 8], got [3]",
    ),
    "one scale is not broadcast": (
        (X, Q, S[:1], None),
        ShapeError,
        "scales: expected [4] for a weight [4, 8], got [1]",
    ),
    "bias of the wrong length": (
        (X, Q, S, torch.ones(8)),
        ShapeError,
        "bias: expected [4] for a weight [4, 8], got [8]",
    ),
    "two devices": (
        (X.to("meta"), Q, S, None),
        DtypeError,
        "expected all tensors on one device, got input on meta, weight on cpu, scales on cpu",
    ),
    "two devices with a bias": (
        (X, Q, S, S.to("meta")),
        DtypeError,
        "expected all tensors on one device, got input on cpu, weight on cpu, scales on cpu, bias on meta",
    ),
}
FORWARD_ONLY = {
    "scales with too many dimensions": (
        (X, Q, S[None, None], None),
        ShapeError,
        "scales: expected [N] or [1, N], got [1, 1, 4]",
    ),
    "scales in a column": (
        (X, Q, S[:, None], None),
        ShapeError,
        "scales: expected [N] or [1, N], got [4, 1]",
    ),
    "one scale for all": ((X, Q, S.sum(), None), ShapeError, "scales: expected [N] or [1, N], got []"),
    "bias in a column": ((X, Q, S, S[:, None]), ShapeError, "bias: expected [N] or [1, N], got [4, 1]"),
    "input that is no tensor": (
        ([[1.0] * 8], Q, S, None),
        DtypeError,
        "input: expected a tensor, got list",
    ),
    "weight that is no tensor": ((X, None, S, None), DtypeError, "weight: expected a tensor, got NoneType"),
    "scales that are no tensor": ((X, Q, 0.5, None), DtypeError, "scales: expected a tensor, got float"),
    "bias that is no tensor": (
        (X, Q, S, [0.0] * 4),
        DtypeError,
        "bias: expected a tensor or None, got list",
    ),
}


def check(function, error, text):
    with pytest.raises(W8A16Error) as caught:
        function()
    assert type(caught.value) is error
    assert isinstance(caught.value, TypeError if error is DtypeError else ValueError)
    assert str(caught.value) == text


@pytest.mark.parametrize("arguments, error, text", CASES.values(), ids=CASES)
def test_the_op(arguments, error, text):
    check(lambda: linear(*arguments), error, text)


@pytest.mark.parametrize(
    "arguments, error, text",
    [*CASES.values(), *FORWARD_ONLY.values()],
    ids=[*CASES, *FORWARD_ONLY],
)
def test_the_public_function(arguments, error, text):
    x, q, scales, bias = arguments
    check(lambda: w8_a16_forward(q, x, scales, bias), error, text)


@pytest.mark.parametrize("mode", ["autocast", "training", "inference", "vmap"])
@pytest.mark.parametrize("case", ["integer input", "complex input", "wrong width", "too few scales"])
def test_the_texts_do_not_depend_on_the_mode(case, mode):
    (x, q, scales, bias), error, text = CASES[case]

    def run():
        if mode == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                linear(x, q, scales, bias)
        elif mode == "inference":
            with torch.inference_mode():
                linear(x, q, scales, bias)
        elif mode == "training":
            linear(x, q, scales.clone().requires_grad_(), bias)
        else:
            torch.func.vmap(lambda rows: linear(rows, q, scales, bias))(x[None])

    if mode == "vmap" and case == "wrong width":
        text = text.replace("[3, 7]", "[1, 3, 7]")  # the rule hands all samples over at once
    check(run, error, text)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (
            (torch.ones(3, 8), Q, S),
            ShapeError,
            "grad_output: expected a last dimension of 4 for a weight [4, 8], got [3, 8]",
        ),
        (
            (torch.ones(3, 4).int(), Q, S),
            DtypeError,
            "grad_output: expected float16, bfloat16, float32 or float64, got torch.int32 (weight [4, 8])",
        ),
        ((torch.ones(3, 4), Q, S[:3]), ShapeError, "scales: expected [4] for a weight [4, 8], got [3]"),
    ],
)
def test_the_input_gradient_op(arguments, error, text):
    check(lambda: linear_input_grad(*arguments), error, text)
