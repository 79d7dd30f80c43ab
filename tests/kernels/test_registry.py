"""Which backend runs, why, and what `W8A16_BACKEND` may say."""

import pytest
import torch

from w8a16.errors import BackendError
from w8a16.kernels import (
    Backend,
    Decision,
    backends,
    decide,
    linear,
    linear_input_grad,
    native_ops,
    registry,
    select,
)

X, Q, S = torch.ones(2, 8), torch.ones(4, 8, dtype=torch.int8), torch.ones(4)


@pytest.fixture(autouse=True)
def _fresh_choice(monkeypatch):
    monkeypatch.delenv("W8A16_BACKEND", raising=False)
    registry._select.cache_clear()
    yield
    registry._select.cache_clear()


def fake_backend(name, why_not=None, value=0.0):
    def constant(first, int8_weights, scales, bias=None):
        width = int8_weights.shape[0 if first.shape[-1] == int8_weights.shape[1] else 1]
        return first.new_full((*first.shape[:-1], width), value)

    return Backend(name, constant, constant, lambda device_type: why_not)


def use_backends(monkeypatch, *fakes):
    monkeypatch.setattr(registry, "_BACKENDS", fakes)
    monkeypatch.setattr(native_ops, "_linear", None)  # the short way to the real kernel
    monkeypatch.setattr(native_ops, "_are_known", True)


@pytest.mark.parametrize("device_type", ["cpu", "cuda", "mps", "xpu"])
def test_the_reference_runs_everywhere(device_type):
    assert decide(device_type)[-1] == Decision("reference", True, f"runs on {device_type}")
    assert backends()[-1].name == "reference"


def test_every_backend_gets_one_decision_with_a_reason():
    decisions = decide("cpu")
    assert [d.backend for d in decisions] == [b.name for b in backends()]
    assert all(d.reason for d in decisions)
    assert select("cpu").name == next(d.backend for d in decisions if d.accepted)


def test_the_reference_can_be_forced(monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    assert select("cpu").name == "reference"
    assert linear(X, Q, S, None).tolist() == [[8.0] * 4] * 2


def test_an_unknown_name_fails_loudly(monkeypatch):
    known = ", ".join(b.name for b in backends())
    text = f"W8A16_BACKEND='fastest': expected one of {known}"
    monkeypatch.setenv("W8A16_BACKEND", "fastest")
    for call in (
        lambda: decide("cpu"),
        lambda: select("cpu"),
        lambda: linear(X, Q, S, None),
        lambda: linear_input_grad(X[:, :4], Q, S),
    ):
        with pytest.raises(BackendError) as caught:
            call()
        assert str(caught.value) == text
        assert isinstance(caught.value, RuntimeError)


def test_a_name_is_matched_exactly(monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "Reference")
    with pytest.raises(BackendError, match=r"^W8A16_BACKEND='Reference': expected one of "):
        select("cpu")


def test_an_empty_name_forces_nothing(monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "")
    assert registry.forced_backend() is None
    assert select("cpu") == backends()[[d.accepted for d in decide("cpu")].index(True)]


def test_the_first_backend_that_can_run_is_chosen(monkeypatch):
    first, second = fake_backend("first", "no such instruction"), fake_backend("second", value=2.0)
    use_backends(monkeypatch, first, second, fake_backend("third", value=3.0))
    assert decide("cpu") == [
        Decision("first", False, "no such instruction"),
        Decision("second", True, "runs on cpu"),
        Decision("third", True, "runs on cpu"),
    ]
    assert select("cpu") is second
    assert linear(X, Q, S, None).tolist() == [[2.0] * 4] * 2
    assert linear_input_grad(X[:, :4], Q, S).tolist() == [[2.0] * 8] * 2


def test_a_forced_backend_beats_the_preferred_one(monkeypatch):
    use_backends(monkeypatch, fake_backend("first"), fake_backend("second", value=2.0))
    monkeypatch.setenv("W8A16_BACKEND", "second")
    assert decide("cpu") == [
        Decision("first", False, "W8A16_BACKEND=second asks for another one"),
        Decision("second", True, "runs on cpu"),
    ]
    assert linear(X, Q, S, None)[0, 0] == 2


def test_the_variable_is_read_at_each_call(monkeypatch):
    use_backends(monkeypatch, fake_backend("first", value=1.0), fake_backend("second", value=2.0))
    seen = []
    for name in ("first", "second", "first"):
        monkeypatch.setenv("W8A16_BACKEND", name)
        seen.append(linear(X, Q, S, None)[0, 0].item())
    assert seen == [1.0, 2.0, 1.0]


def test_a_forced_backend_that_cannot_run_is_an_error_with_all_reasons(monkeypatch):
    use_backends(monkeypatch, fake_backend("first", "no such instruction"), fake_backend("second"))
    monkeypatch.setenv("W8A16_BACKEND", "first")
    with pytest.raises(BackendError) as caught:
        linear(X, Q, S, None)
    assert str(caught.value) == (
        "no backend can run on cpu (W8A16_BACKEND=first): first: no such instruction; "
        "second: W8A16_BACKEND=first asks for another one"
    )


def test_arguments_are_checked_before_a_backend_sees_them(monkeypatch):
    def never(*arguments):
        raise AssertionError("called with unchecked arguments")

    use_backends(monkeypatch, Backend("strict", never, never, lambda device_type: None))
    with pytest.raises(ValueError, match=r"^input: expected a last dimension of 8"):
        linear(X[:, :7], Q, S, None)
    with pytest.raises(ValueError, match=r"^grad_output: expected a last dimension of 4"):
        linear_input_grad(X, Q, S)
