"""Float weights are released as the walk goes on, so the peak is the int8 model plus one layer."""

import gc
import weakref

import pytest
import torch
from torch import nn

import w8a16
from support.twins import mlp

DEPTH = 6


def watched(model):
    """Weak references to the float weights by module name, with the garbage collector off."""
    linears = [(path, module) for path, module in model.named_modules() if type(module) is nn.Linear]
    return {path: weakref.ref(module.weight) for path, module in linears}


@pytest.fixture(autouse=True)
def _no_garbage_collector():
    """Memory must be freed by reference counts alone, not whenever a collection happens to run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_earlier_weights_are_gone_before_later_modules_are_converted():
    model = mlp(*[16] * (DEPTH + 1))
    weights, alive = watched(model), []

    def progress(path, done, total):
        alive.append((path, [name for name, weight in weights.items() if weight() is not None]))

    w8a16.quantize(model, progress=progress)
    names = list(weights)
    assert [path for path, _ in alive] == names
    for position, (path, still) in enumerate(alive):
        # The module that was just converted may be held by the loop; those before it may not.
        assert set(still) <= set(names[position:]), path
        assert set(still) >= set(names[position + 1 :]), "the walk ran ahead of its progress"
    assert [weight() for weight in weights.values()] == [None] * DEPTH


def test_the_storage_is_gone_not_only_the_parameter():
    model = mlp(16, 16, 16)
    storages = [weakref.ref(model[index].weight.untyped_storage()) for index in (0, 2)]
    data = [model[index].weight.data.untyped_storage() for index in (0, 2)]
    assert len({storage.data_ptr() for storage in data}) == 2
    del data
    w8a16.quantize(model)
    assert [storage() for storage in storages] == [None, None]


def test_tied_weights_are_gone_when_the_last_of_them_is_converted():
    model = mlp(*[16] * 4)
    model[4].weight = model[0].weight
    weights, alive = watched(model), {}
    w8a16.quantize(model, progress=lambda path, *_: alive.update({path: weights["0"]() is not None}))
    assert weights["0"]() is None
    assert set(alive) == {"0", "2", "4"}


def test_gradients_are_released_too():
    model = mlp()
    model(torch.randn(3, 16)).sum().backward()
    gradients = [weakref.ref(parameter.grad) for parameter in model.parameters()]
    w8a16.quantize(model)
    assert [gradient() for gradient in gradients] == [None] * 4


def test_dequantize_releases_codes_and_keeps_no_model_alive():
    model = w8a16.quantize(mlp())
    codes = [weakref.ref(layer.int8_weights) for layer in (model[0], model[2])]
    w8a16.dequantize(model)
    assert [code() for code in codes] == [None, None]


def test_a_quantized_model_is_freed_by_reference_counts():
    """No cycle through a rebound method or a registry may keep it."""
    model = w8a16.quantize(mlp())
    model(torch.randn(2, 16, requires_grad=True)).sum().backward()
    codes, layer = weakref.ref(model[0].int8_weights), weakref.ref(model[0])
    del model
    assert layer() is None
    assert codes() is None


def test_progress_counts_the_float_bytes():
    seen = []
    w8a16.quantize(mlp(16, 32, 8), progress=lambda *event: seen.append(event))
    first, second = 16 * 32 * 4, 32 * 8 * 4
    assert seen == [("0", first, first + second), ("2", first + second, first + second)]


def test_an_error_in_the_progress_callback_reaches_the_caller():
    class Stop(Exception):
        pass

    def progress(*event):
        raise Stop

    model = mlp()
    with pytest.raises(Stop):
        w8a16.quantize(model, progress=progress)
    assert model(torch.randn(3, 16)).shape == (3, 8), "a walk that was stopped leaves a model that works"
    w8a16.quantize(model)
    assert type(model[2]) is w8a16.W8A16LinearLayer
