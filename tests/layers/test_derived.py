"""Classes made on the fly: below the user's class in the order of inheritance, and gone with the codes."""

import abc
import copy
import io
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import w8a16
from support.twins import make_twin
from w8a16.layers import W8A16Embedding, W8A16LinearLayer, derived_class
from w8a16.layers.parameters import W8A16Parameters


class Scaled(nn.Linear):
    """Its own forward, attributes and methods."""

    factor = 0.5

    def forward(self, input):
        return super().forward(input) * self.factor

    def describe(self):
        return f"{type(self).__name__} of {self.out_features}"


class Twice(Scaled):
    """A subclass of a subclass."""

    def forward(self, input):
        return super().forward(input) + super().forward(input)


class Mixin:
    """Comes before the layer."""

    def forward(self, input):
        return super().forward(input) + 1


class Mixed(Mixin, nn.Linear):
    """Two bases."""


class Abstract(nn.Linear, abc.ABC):
    """Another metaclass than `type`."""

    @abc.abstractmethod
    def twice(self): ...


class Concrete(Abstract):
    def twice(self):
        return 2 * self.out_features


class Slotted(nn.Linear):
    """Keeps state of its own for pickling."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.cache = lambda: None

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "cache"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.cache = "rebuilt"


class Table(nn.Module):
    """No known layer: a parameter of its own."""

    def __init__(self, *arguments):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        return x @ self.rows


SUBCLASSES = [Scaled, Twice, Mixed, Concrete]
EVERY = [*SUBCLASSES, Table]


def copy_through_torch(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("float_type", SUBCLASSES)
def test_the_order_of_inheritance(float_type):
    layer = w8a16.quantize(float_type(16, 16))
    line = type(layer).__mro__
    assert line[:2] == (type(layer), float_type)
    assert line.index(float_type) < line.index(W8A16LinearLayer) < line.index(nn.Linear)
    assert type(type(layer)) is type(float_type)
    assert isinstance(layer, (float_type, W8A16LinearLayer))
    assert type(layer).float_type is float_type
    assert type(layer).__module__ == float_type.__module__
    assert type(layer).__name__ == f"W8A16{float_type.__name__}"


def test_the_methods_and_the_forward_are_those_of_the_subclass():
    layer, x = w8a16.quantize(Scaled(16, 16)), torch.randn(3, 16)
    assert layer.describe() == "W8A16Scaled of 16"
    assert torch.equal(layer(x), W8A16LinearLayer.forward(layer, x) * 0.5)
    layer.factor = 2
    assert torch.equal(layer(x), W8A16LinearLayer.forward(layer, x) * 2)
    assert w8a16.quantize(Concrete(16, 16)).twice() == 32


@pytest.mark.parametrize("float_type", EVERY)
def test_it_equals_its_twin_and_goes_back(float_type):
    layer, x = w8a16.quantize(float_type(16, 16)), torch.randn(3, 16)
    assert isinstance(layer, float_type)
    before = layer(x)
    twin = make_twin(layer)
    assert type(twin) is float_type
    torch.testing.assert_close(twin(x), before, rtol=1e-5, atol=1e-5)
    twin(x).sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in twin.parameters())
    assert type(w8a16.dequantize(layer)) is float_type
    assert set(vars(layer)) == set(vars(float_type(16, 16)))
    assert list(layer.state_dict()) == list(float_type(16, 16).state_dict())


@pytest.mark.parametrize("float_type", EVERY)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), copy_through_torch]
)
def test_copies(float_type, copied):
    layer, x = w8a16.quantize(float_type(16, 16)), torch.randn(3, 16)
    model = copied(nn.Sequential(layer))
    assert type(model[0]) is type(layer)
    assert torch.equal(model(x), layer(x))
    assert type(w8a16.dequantize(model)[0]) is float_type


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle(protocol):
    layer, x = w8a16.quantize(Scaled(16, 16)), torch.randn(3, 16)
    assert torch.equal(pickle.loads(pickle.dumps(layer, protocol))(x), layer(x))


def test_a_class_with_state_of_its_own():
    layer = w8a16.quantize(Slotted(16, 16))
    other = pickle.loads(pickle.dumps(layer))
    assert other.cache == "rebuilt"
    assert torch.equal(other.int8_weights, layer.int8_weights)


def test_it_is_pickled_by_what_it_is_made_of(tmp_path):
    """Another process has not made the class yet."""
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            from torch import nn
            class Mine(nn.Linear):
                def forward(self, x):
                    return super().forward(x) * 3
            """
        )
    )
    write = "import torch, mine, w8a16; torch.save(w8a16.quantize(mine.Mine(16, 16)), 'model.pt')"
    read = """
        import torch
        model = torch.load('model.pt', weights_only=False)
        print(type(model).__name__, model.int8_weights.dtype, model(torch.zeros(1, 16)).shape)
        import w8a16, mine
        assert type(w8a16.dequantize(model)) is mine.Mine
    """
    for code in (write, textwrap.dedent(read)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "W8A16Mine torch.int8 torch.Size([1, 16])\n"


def test_one_class_for_all_modules_of_a_class():
    model = w8a16.quantize(nn.ModuleList([Scaled(16, 16), Scaled(16, 8), Twice(16, 16)]))
    assert type(model[0]) is type(model[1])
    assert type(model[0]) is not type(model[2])
    again = derived_class(W8A16LinearLayer, nn.Linear, Scaled, ("weight",))
    assert type(model[0]) is again


def test_plain_layers_get_the_plain_class():
    assert derived_class(W8A16LinearLayer, nn.Linear, nn.Linear, ("weight",)) is W8A16LinearLayer
    assert type(w8a16.quantize(nn.Embedding(8, 16))) is W8A16Embedding
    assert type(w8a16.quantize(nn.Linear(16, 8))) is W8A16LinearLayer


def test_the_order_of_the_names_does_not_matter():
    classes = {
        derived_class(W8A16Parameters, nn.Module, Table, names) for names in (("rows", "b"), ("b", "rows"))
    }
    assert len(classes) == 1


def test_a_plain_layer_with_a_parameter_more():
    layer, x = nn.Linear(16, 16), torch.randn(3, 16)
    layer.extra = nn.Parameter(torch.randn(4, 16))
    w8a16.quantize(layer)
    assert isinstance(layer, W8A16LinearLayer)
    assert layer.extra.shape == (4, 16)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy_through_torch(layer)):
        assert torch.equal(other(x), layer(x))
        assert torch.equal(other.extra + 0, layer.extra + 0)
    assert type(w8a16.dequantize(layer)) is nn.Linear
    assert sorted(name for name, _ in layer.named_parameters()) == ["bias", "extra", "weight"]


def test_super_without_arguments_and_class_attributes_still_work():
    class Counting(nn.Linear):
        calls = 0

        def __init__(self):
            super().__init__(16, 16)

        def forward(self, input):
            Counting.calls += 1
            return super().forward(input)

    layer = w8a16.quantize(Counting())
    layer(torch.randn(1, 16))
    assert Counting.calls == 1


def test_hooks_of_the_class_see_the_new_class_once():
    """`__init_subclass__` of a user's class runs once, when the class is made."""
    made = []

    class Registered(nn.Linear):
        def __init_subclass__(cls, **options):
            super().__init_subclass__(**options)
            made.append(cls.__name__)

    for _ in range(2):
        w8a16.quantize(Registered(16, 16))
    assert made == ["W8A16Registered"]
