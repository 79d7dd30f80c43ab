"""What is seen of each module: every kind of model, and models that make it hard to see."""

import copy

import pytest
import torch
from torch import nn

import w8a16
from support.kinds import CASES
from support.twins import mlp
from w8a16.study.compare import compare
from w8a16.study.compare.units import weights_of


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def pair(model, **options):
    model = model.eval()
    return model, w8a16.quantize(copy.deepcopy(model), **options)


def both_ways(model, quantized, batches, **options):
    """The comparison, after making sure that both ways give the same."""
    ours = compare(model, quantized, batches, **options)
    theirs = compare(None, quantized, batches, weights=weights_of(model), **options)
    assert theirs == ours
    return ours


def by_name(comparison):
    return {module.name: module for module in comparison.modules}


@pytest.mark.parametrize("name", CASES)
def test_every_convolution_recurrent_net_and_bilinear_layer(name):
    case = CASES[name]
    model, quantized = pair(case.make())
    (module,) = both_ways(model, quantized, [case.inputs(), case.inputs()]).modules
    assert (module.name, module.depth) == ("", 0)
    assert module.own == module.drifted
    assert 20 < module.own.sqnr_db < 70
    assert module.weight.largest_half_steps <= 1.001


def test_a_module_called_several_times_adds_up():
    model, quantized = pair(SharedLayer())
    x = torch.randn(4, 32)
    (module,) = both_ways(model, quantized, [x]).modules
    assert module.name == "layer"
    assert module.own.elements == module.drifted.elements == 3 * 4 * 32
    assert module.own.sqnr_db > module.drifted.sqnr_db


class SharedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 32)
        self.again = self.layer

    def forward(self, x):
        return self.again(self.layer(self.layer(x)))


def test_an_activation_in_place_does_not_touch_what_was_kept():
    """Without a copy, the float output would be compared after the ReLU, the int8 output before it."""
    plain, in_place = (nn.Sequential(nn.Linear(32, 64), nn.ReLU(inplace=i), nn.Linear(64, 8)) for i in (0, 1))
    in_place.load_state_dict(plain.state_dict())
    x = torch.randn(4, 32)
    found = [both_ways(*pair(model), [x]).modules for model in (plain, in_place)]
    assert found[0] == found[1]
    assert all(module.drifted.sqnr_db > 30 for module in found[0])


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = AddsInPlace()
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(self.inner(x * 1.0, [torch.ones(1)]))


class AddsInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(6, 16))

    def forward(self, x, calls):
        x += self.position
        calls[0] += 1
        return x * calls[0]


def test_a_module_that_writes_into_its_inputs_gets_them_as_they_were():
    """Its own drift is that of its table: 2 (x + q) against 2 (x + w), and not 3 (x + w + q)."""
    model, quantized = pair(InPlace())
    x = torch.randn(2, 6, 16)
    modules = by_name(both_ways(model, quantized, [x]))
    expected = 2 * (model.inner.position - quantized.inner.position).abs().max()
    assert modules["inner"].own.largest_difference == pytest.approx(float(expected), rel=1e-4)
    assert modules["inner"].own == modules["inner"].drifted


class Container(nn.Module):
    """A parameter of the model itself, with int8 modules inside."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(6, 16))
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(x + self.position)


def test_own_drift_of_a_container_leaves_out_what_is_inside():
    model, quantized = pair(Container())
    x = torch.randn(2, 6, 16)
    modules = by_name(both_ways(model, quantized, [x]))
    with torch.no_grad():
        expected = model.layer(x + quantized.position) - model(x)
    assert modules[""].own.largest_difference == pytest.approx(float(expected.abs().max()), rel=1e-5)
    assert (modules[""].depth, modules["layer"].depth) == (0, 1)
    assert modules[""].drifted.sqnr_db < modules[""].own.sqnr_db


def test_attention_and_its_output_projection():
    """torch's float attention reads the projection's weight and never calls it."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.1), 1)
    model, quantized = pair(model)
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = True
    batch = {"src": torch.randn(3, 7, 32), "src_key_padding_mask": padding}
    comparison = compare(model, quantized, [batch])
    modules = by_name(comparison)
    attention, projection = modules["layers.0.self_attn"], modules["layers.0.self_attn.out_proj"]
    assert (attention.kind, projection.kind) == ("attention", "linear")
    assert attention.drifted == projection.drifted
    assert len({attention.own, projection.own, projection.drifted}) == 3
    assert all(module.own.sqnr_db > 35 for module in comparison.modules)
    theirs = compare(None, quantized, [batch], weights=weights_of(model))
    assert theirs.modules == comparison.modules
    # The zeros that torch puts where the padding was are part of both outputs.
    assert dict(comparison.outputs)[""].sqnr_db > 35


def test_a_module_that_is_never_called_is_said_to_be():
    model = mlp(32, 64, 8)
    model.spare = nn.Linear(32, 32)
    model.forward = lambda x: model[2](model[1](model[0](x)))
    quantized = w8a16.quantize(copy.deepcopy(model))
    quantized.forward = lambda x: quantized[2](quantized[1](quantized[0](x)))
    *called, spare = compare(model, quantized, [torch.randn(3, 32)]).modules
    assert [module.name for module in called] == ["0", "2"]
    assert (spare.name, spare.depth, spare.own, spare.drifted) == ("spare", None, None, None)
    assert spare.note == "never called: the inputs do not reach it, or its weight is read by another module"
    assert spare.weight.sqnr_db > 30


class Routed(nn.Module):
    """Each row goes to the expert that a threshold picks, which noise can change."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(32, 32)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

    def forward(self, x):
        first = self.router(x)[:, 0] > 0
        y = torch.zeros_like(x)
        for chosen, expert in zip((first, ~first), self.experts, strict=True):
            y[chosen] = expert(x[chosen])
        return y


def test_experts_that_get_other_rows_have_no_drift_but_a_note():
    model, quantized = pair(Routed())
    with torch.no_grad():
        x = torch.randn(4000, 32)
        ours, theirs = model.router(x)[:, 0], quantized.router(x)[:, 0]
        turned = (ours > 0) & (theirs <= 0)
        assert turned.any()
        x = torch.cat([x[turned], x[ours.abs() > 0.5][:40]])
    modules = by_name(both_ways(model, quantized, [x]))
    for name in ("experts.0", "experts.1"):
        assert modules[name].own.sqnr_db > 30
        assert modules[name].drifted is None
        assert modules[name].note == "its inputs have other shapes in the int8 model"


@pytest.mark.parametrize("budget", [0, 3000, 1 << 30])
def test_the_budget_costs_runs_and_changes_nothing(budget):
    model, quantized = pair(mlp(32, 64, 64, 64, 64, 8))
    runs = []
    model[0].register_forward_hook(lambda *_: runs.append(1))
    x = torch.randn(4, 32)  # each output of a hidden layer has 1,024 bytes
    result = compare(model, quantized, [x], activation_bytes=budget)
    assert len(runs) == {0: 5, 3000: 2, 1 << 30: 1}[budget]
    assert result == compare(model, quantized, [x])


def test_random_numbers_are_the_same_on_both_sides():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, x):
            return self.layer(x + torch.randn_like(x)) + torch.randn(32)

    model, quantized = pair(Noisy())
    comparison = both_ways(model, quantized, [torch.randn(8, 32)])
    assert dict(comparison.outputs)[""].sqnr_db > 30
    assert comparison.modules[0].own == comparison.modules[0].drifted


@pytest.mark.parametrize("refine", [{"group_size": {"*": 16}}, {"outliers": {"*": 2}}])
def test_refined_layers(refine):
    from w8a16.convert import Recipe

    model = mlp(64, 96, 32).eval()
    refined = w8a16.quantize(copy.deepcopy(model), recipe=Recipe(**refine))
    plain = w8a16.quantize(copy.deepcopy(model))
    x = torch.randn(5, 64)
    found = both_ways(model, refined, [x], sensitivity=True)
    coarse = compare(model, plain, [x])
    assert found.bytes_after > coarse.bytes_after
    assert all(
        a.weight.sqnr_db > b.weight.sqnr_db for a, b in zip(found.modules, coarse.modules, strict=True)
    )
    assert found.drift < coarse.drift
