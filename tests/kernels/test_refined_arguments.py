"""The exact text and type of every complaint about the arguments of the refined ops."""

import pytest
import torch

from w8a16.errors import DtypeError, IndexRangeError, ShapeError, W8A16Error
from w8a16.kernels import apply_refined_linear, refined_linear, refined_linear_input_grad

X, Q, S = torch.ones(3, 8), torch.ones(4, 2, 4, dtype=torch.int8), torch.ones(4, 2)
B, C, V = torch.ones(4), torch.zeros(4, 1, dtype=torch.int32), torch.ones(4, 1)

CASES = {
    "integer input": (
        (X.int(), Q, S, None, None, None),
        DtypeError,
        "input: expected float16, bfloat16, float32 or float64, got torch.int32 (weight [4, 2, 4])",
    ),
    "wrong width": (
        (X[:, 1:], Q, S, None, None, None),
        ShapeError,
        "input: expected a last dimension of 8 for a weight [4, 2, 4], got [3, 7]",
    ),
    "scalar input": (
        (X[0, 0], Q, S, None, None, None),
        ShapeError,
        "input: expected a last dimension of 8 for a weight [4, 2, 4], got []",
    ),
    "float weight": (
        (X, Q.float(), S, None, None, None),
        DtypeError,
        "weight: expected int8 codes, got torch.float32; quantize the float weight first",
    ),
    "flat weight": (
        (X, Q.flatten(), S, None, None, None),
        ShapeError,
        "weight: expected [N, K] or, in groups, [N, G, S], got [32]",
    ),
    "scales of rows for groups": (
        (X, Q, B, None, None, None),
        ShapeError,
        "scales: expected [4, 2] for a weight [4, 2, 4], got [4]",
    ),
    "scales of groups for rows": (
        (X, Q.flatten(1), S, None, None, None),
        ShapeError,
        "scales: expected [4] for a weight [4, 8], got [4, 2]",
    ),
    "integer scales": (
        (X, Q, S.int(), None, None, None),
        DtypeError,
        "scales: expected a float dtype, got torch.int32",
    ),
    "long bias": (
        (X, Q, S, torch.ones(5), None, None),
        ShapeError,
        "bias: expected [4] for a weight [4, 2, 4], got [5]",
    ),
    "columns alone": (
        (X, Q, S, B, C, None),
        ShapeError,
        "outlier_columns and outlier_values: expected both or neither, got outlier_columns alone",
    ),
    "values alone": (
        (X, Q, S, B, None, V),
        ShapeError,
        "outlier_columns and outlier_values: expected both or neither, got outlier_values alone",
    ),
    "int64 columns": (
        (X, Q, S, B, C.long(), V),
        DtypeError,
        "outlier_columns: expected int32, got torch.int64",
    ),
    "columns of fewer rows": (
        (X, Q, S, B, C[1:], V[1:]),
        ShapeError,
        "outlier_columns: expected [4, R] for a weight [4, 2, 4], got [3, 1]",
    ),
    "columns in a vector": (
        (X, Q, S, B, C[:, 0], V[:, 0]),
        ShapeError,
        "outlier_columns: expected [4, R] for a weight [4, 2, 4], got [4]",
    ),
    "more values than columns": (
        (X, Q, S, B, C, torch.ones(4, 2)),
        ShapeError,
        "outlier_values: expected [4, 1] as outlier_columns, got [4, 2]",
    ),
    "integer values": (
        (X, Q, S, B, C, V.int()),
        DtypeError,
        "outlier_values: expected a float dtype, got torch.int32",
    ),
    "two devices": (
        (X, Q, S, B, C, V.to("meta")),
        DtypeError,
        "expected all tensors on one device, got input on cpu, weight on cpu, scales on cpu, bias on cpu, "
        "outlier_columns on cpu, outlier_values on meta",
    ),
    "column beyond": (
        (X, Q, S, B, C + 8, V),
        IndexRangeError,
        "outlier_columns: expected 0 to 7, got 8",
    ),
    "negative column": (
        (X, Q, S, B, C - 1, V),
        IndexRangeError,
        "outlier_columns: expected 0 to 7, got -1",
    ),
    "a column of none": (
        (X[:, :0], Q[:, :0], S[:, :0], B, C, V),
        IndexRangeError,
        "outlier_columns: expected none for a weight without columns, got 0",
    ),
}


def check(call, error, text):
    with pytest.raises(W8A16Error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == text


@pytest.mark.every_backend
@pytest.mark.parametrize("function", [apply_refined_linear, refined_linear])
@pytest.mark.parametrize("arguments, error, text", CASES.values(), ids=CASES)
def test_the_op(arguments, error, text, function):
    check(lambda: function(*arguments), error, text)


@pytest.mark.every_backend
def test_the_gradient_op():
    grad = torch.ones(3, 5)
    text = "grad_output: expected a last dimension of 4 for a weight [4, 2, 4], got [3, 5]"
    check(lambda: refined_linear_input_grad(grad, Q, S, None, None), ShapeError, text)
    text = "outlier_columns: expected 0 to 7, got 9"
    check(lambda: refined_linear_input_grad(grad[:, 1:], Q, S, C + 9, V), IndexRangeError, text)


@pytest.mark.parametrize("mode", ["autocast", "training", "inference", "grad", "float64"])
@pytest.mark.parametrize("case", ["wrong width", "scales of rows for groups", "column beyond"])
def test_the_texts_do_not_depend_on_the_mode(case, mode):
    (x, *rest), error, text = CASES[case]

    def run():
        if mode == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                apply_refined_linear(x, *rest)
        elif mode == "inference":
            with torch.inference_mode():
                apply_refined_linear(x, *rest)
        elif mode == "training":
            apply_refined_linear(x.clone().requires_grad_(), *rest)
        elif mode == "float64":
            apply_refined_linear(x.double(), *rest)
        else:
            torch.func.grad(lambda rows: apply_refined_linear(rows, *rest).sum())(x)

    check(run, error, text)


def test_meta_tensors_get_the_same_errors_but_for_values():
    def on_meta(case):
        return [None if t is None else t.to("meta") for t in CASES[case][0]]

    _, error, text = CASES["wrong width"]
    check(lambda: apply_refined_linear(*on_meta("wrong width")), error, text)
    assert apply_refined_linear(*on_meta("column beyond")).shape == (3, 4)
