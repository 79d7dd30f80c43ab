"""Modules whose weights stay float, for every reason there is: builders, each with its reason."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize


class Tagged(nn.Parameter):
    """A Parameter class of another library."""


class Wrapped(torch.Tensor):
    """A tensor class of another library, as torchao's and FSDP's are."""


class Bare(nn.Module):
    """A module with parameters of its own."""

    def __init__(self, **parameters):
        super().__init__()
        for name, value in parameters.items():
            setattr(self, name, value if isinstance(value, nn.Module) else nn.Parameter(value))


class Meta(type):
    """Allows one class, and none that inherits from it."""

    def __new__(mcs, name, bases, namespace):
        if any(isinstance(base, Meta) for base in bases):
            raise TypeError("closed")
        return super().__new__(mcs, name, bases, namespace)


class ByMetaclass(nn.Linear, metaclass=Meta):
    """Cannot be inherited from."""


class BySubclassHook(nn.Module):
    """Cannot be inherited from."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(16, 16))

    def __init_subclass__(cls):
        raise TypeError("closed")


class Product(nn.Module):
    """Computes a bias through a matrix, and a vector."""

    def __init__(self, width):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(width, width))
        self.shift = nn.Parameter(torch.randn(width))

    def forward(self, bias):
        return self.matrix @ bias + self.shift


def with_a_computed_bias(layer):
    """`layer`, its bias parametrized."""
    parametrize.register_parametrization(layer, "bias", Product(len(layer.bias)))
    return layer


class Inner(nn.Module):
    """A parameter of its own, which tracing puts into the graph module."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        return x @ self.table


def linear_with(weight):
    layer = nn.Linear(16, 16)
    layer.weight = weight
    return layer


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


def named(name, value):
    layer = nn.Linear(16, 16)
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        layer.register_buffer(name, value)
    else:
        setattr(layer, name, value)
    return layer


class Adapter(nn.Module):
    """As peft's layers are, without a base."""

    adapter_layer_names = ("lora_A",)

    def __init__(self) -> None:
        super().__init__()
        self.lora_A = nn.Linear(64, 16)


def tied_to_conv1d():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D(16, 16)
    return nn.ModuleList([conv1d, linear_with(conv1d.weight)])


def with_nan():
    layer = nn.Linear(16, 16)
    layer.weight.data[2, 3] = torch.nan
    return layer


def parametrized_vector():
    """The matrix inside makes a vector, and only who put it there knows whether it may go."""
    module = Bare(gain=torch.ones(16))
    parametrize.register_parametrization(module, "gain", nn.Linear(16, 16))
    return module


def tied_to_traced():
    traced = torch.fx.symbolic_trace(Inner())
    return nn.ModuleList([linear_with(traced.table), traced])


STAYS_FLOAT = {
    "float8": (lambda: linear_with(frozen(torch.ones(16, 16).to(torch.float8_e4m3fn))), "dtype"),
    "complex": (lambda: linear_with(nn.Parameter(torch.ones(16, 16, dtype=torch.complex64))), "dtype"),
    "int8": (lambda: linear_with(frozen(torch.ones(16, 16, dtype=torch.int8))), "dtype"),
    "int64": (lambda: linear_with(frozen(torch.ones(16, 16, dtype=torch.int64))), "dtype"),
    "bool": (lambda: linear_with(frozen(torch.ones(16, 16, dtype=torch.bool))), "dtype"),
    "complex parameter": (lambda: Bare(filter=torch.ones(4, 16, dtype=torch.complex64)), "dtype"),
    "coo": (lambda: linear_with(nn.Parameter(torch.eye(16).to_sparse())), "layout"),
    "csr": (lambda: linear_with(nn.Parameter(torch.eye(16).to_sparse_csr())), "layout"),
    "parameter class": (lambda: linear_with(Tagged(torch.ones(16, 16))), "tensor_subclass"),
    "tensor class": (
        lambda: linear_with(nn.Parameter(torch.ones(16, 16).as_subclass(Wrapped))),
        "tensor_subclass",
    ),
    "parameter class of a bare parameter": (
        lambda: nn.ParameterList([Tagged(torch.ones(4, 16))]),
        "tensor_subclass",
    ),
    "one dimension": (lambda: linear_with(nn.Parameter(torch.ones(16))), "shape"),
    "buffer named scales": (lambda: named("scales", torch.ones(16)), "attribute_taken"),
    "attribute named scales": (lambda: named("scales", "mine"), "attribute_taken"),
    "attribute named weight_dtype": (lambda: named("weight_dtype", torch.half), "attribute_taken"),
    "attribute named layouts": (lambda: named("layouts", ()), "attribute_taken"),
    "child named int8_weights": (lambda: named("int8_weights", nn.Identity()), "attribute_taken"),
    "parameter named scales": (lambda: named("scales", nn.Parameter(torch.ones(16))), "attribute_taken"),
    "names of a bare parameter": (
        lambda: Bare(table=torch.ones(4, 16), table_scales=torch.ones(4)),
        "attribute_taken",
    ),
    "K = 0": (lambda: nn.Linear(0, 5), "not_smaller"),
    "N = 0": (lambda: nn.Linear(5, 0), "not_smaller"),
    "K = 1": (lambda: nn.Linear(1, 64), "not_smaller"),
    "K = 4 in bfloat16": (lambda: nn.Linear(4, 64, dtype=torch.bfloat16), "not_smaller"),
    "narrow embedding": (lambda: nn.Embedding(64, 1), "not_smaller"),
    "narrow parameter": (lambda: Bare(table=torch.ones(16, 2, dtype=torch.half)), "not_smaller"),
    "a row as a matrix": (lambda: Bare(token=torch.ones(1, 1, 64)), "vector"),
    "a column as a matrix": (lambda: Bare(gain=torch.ones(64, 1)), "vector"),
    "lazy": (lambda: nn.LazyLinear(4), "uninitialized"),
    "bias of two dimensions": (lambda: Bare(bias=torch.ones(4, 16)), "bias"),
    "bias by its ending": (lambda: Bare(relative_position_bias=torch.ones(4, 16)), "bias"),
    "two biases tied": (
        lambda: nn.ModuleList([a := Bare(bias=torch.ones(4, 16)), Bare(u_bias=a.bias)]),
        "bias",
    ),
    "traced": (lambda: torch.fx.symbolic_trace(Inner()), "compiled_code"),
    "scripted": (lambda: torch.jit.script(nn.Linear(16, 16)), "compiled_code"),
    "metaclass": (lambda: ByMetaclass(16, 16), "final_class"),
    "__init_subclass__": (BySubclassHook, "final_class"),
    "matrix behind a vector": (parametrized_vector, "computed_weight"),
    "shared with compiled code": (tied_to_traced, "tied_to_float"),
    "linear and Conv1D": (tied_to_conv1d, "tied_differently"),
    "stack and view": (
        lambda: nn.ModuleList([a := nn.Conv1d(16, 4, 4), Bare(table=a.weight)]),
        "tied_differently",
    ),
    "NaN": (with_nan, "nonfinite"),
    "adapter": (Adapter, "adapter"),
}
"""Builder of a module of which nothing is converted, and the reason."""
