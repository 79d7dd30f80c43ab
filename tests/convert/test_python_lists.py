"""Layers kept in plain Python containers beside their registration: the same object serves both."""

import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, count_int8, make_twin


class Beside(nn.Module):
    """Registers its layers under names and calls them through a list, a dict and a bound method."""

    def __init__(self):
        super().__init__()
        self.layer0, self.layer1, self.layer2 = (nn.Linear(16, 16) for _ in range(3))
        self.stages = [self.layer0, torch.tanh]
        self.by_name = {"middle": (self.layer1,)}
        self.last = self.layer2.forward

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.last(self.by_name["middle"][0](x))


def test_the_objects_in_the_containers_are_the_converted_ones():
    model = w8a16.quantize(Beside())
    assert model.stages[0] is model.layer0
    assert type(model.stages[0]) is w8a16.W8A16LinearLayer
    assert model.by_name["middle"][0] is model.layer1
    assert count_int8(model) == 3


def test_no_float_layer_is_left_in_use():
    """If the list kept a float copy, changing the int8 layer would not change the output."""
    model, x = w8a16.quantize(Beside()), torch.randn(3, 16)
    before = model(x)
    with torch.no_grad():
        model.layer0.reset_parameters()
    assert not torch.allclose(model(x), before)


def test_it_equals_the_twin():
    model = w8a16.quantize(Beside())
    assert_equals_twin(model, make_twin(model), torch.randn(3, 16))


def test_a_layer_hidden_in_a_list_only_is_not_part_of_the_model():
    """As for every other torch function: what is not registered, `.parameters()` does not see either."""
    model = nn.Sequential(nn.Linear(16, 16))
    model.hidden = [nn.Linear(16, 16)]
    w8a16.quantize(model)
    assert type(model.hidden[0]) is nn.Linear


def test_module_containers():
    model = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 4))])})
    w8a16.quantize(model)
    assert type(model["a"][0]) is type(model["a"][1][0]) is w8a16.W8A16LinearLayer
