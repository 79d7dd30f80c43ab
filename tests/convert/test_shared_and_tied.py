"""The same weight at two places: as one module, as one Parameter, or as two Parameters on one storage."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import (
    assert_equals_twin,
    assert_unchanged,
    make_twin,
    quantize_with_twin,
    snapshot,
    storage_bytes,
)
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps
from w8a16.layers import W8A16Embedding


class Chain(nn.Module):
    """Applies its children one after the other, each as often as it is listed."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        self.order = list(children)

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return x


def check_bytes(model):
    plan = w8a16.plan(model)
    assert plan.bytes_before == storage_bytes(model)
    w8a16.quantize(model)
    assert plan.bytes_after == storage_bytes(model)
    again = w8a16.plan(model)
    assert (again.bytes_before, again.bytes_after) == (plan.bytes_before, plan.bytes_after)
    return plan


class TestOneModule:
    def test_at_two_paths(self):
        layer = nn.Linear(16, 16)
        model = Chain(first=layer, second=nn.GELU(), third=layer)
        plan = check_bytes(model)
        assert [(row.name, row.aliases) for row in plan.rows] == [("first.weight", ("third.weight",))]
        assert model.first is model.third is layer
        assert_equals_twin(model, make_twin(model), torch.randn(3, 16))

    def test_under_two_parents(self):
        layer = nn.Linear(16, 16)
        left, right = Chain(a=layer, b=nn.ReLU()), Chain(a=nn.Linear(16, 16), shared=layer)
        model = Chain(left=left, right=right)
        check_bytes(model)
        assert left.a is right.shared is layer
        twin = make_twin(model)
        assert twin.left.a is twin.right.shared
        assert_equals_twin(model, twin, torch.randn(3, 16))

    def test_converted_once(self):
        seen = []
        layer = nn.Linear(16, 16)
        w8a16.quantize(Chain(first=layer, second=layer), progress=lambda *event: seen.append(event))
        assert seen == [("first", 1024, 1024)]


class TestOneParameter:
    @staticmethod
    def model():
        model = Chain(first=nn.Linear(16, 16), act=nn.GELU(), second=nn.Linear(16, 16))
        model.second.weight = model.first.weight
        return model

    def test_codes_and_scales_are_shared_and_counted_once(self):
        model = self.model()
        plan = check_bytes(model)
        assert [(row.name, row.aliases) for row in plan.rows] == [("first.weight", ("second.weight",))]
        assert model.first.int8_weights is model.second.int8_weights
        assert model.first.scales is model.second.scales
        assert model.first.bias is not model.second.bias
        assert_equals_twin(model, make_twin(model), torch.randn(3, 16))

    def test_the_plan_of_the_result_lists_both_names(self):
        (row,) = w8a16.plan(w8a16.quantize(self.model())).rows
        assert (row.name, row.aliases) == ("first.weight", ("second.weight",))

    def test_three_of_them(self):
        model = self.model()
        model.third = nn.Linear(16, 16, bias=False)
        model.third.weight = model.first.weight
        plan = check_bytes(model)
        assert plan.rows[0].aliases == ("second.weight", "third.weight")
        assert model.third.int8_weights is model.first.int8_weights

    def test_tied_biases(self):
        model = self.model()
        model.second.bias = model.first.bias
        check_bytes(model)
        assert model.first.bias is model.second.bias
        twin = make_twin(model)
        assert twin.first.bias is twin.second.bias
        assert twin.first.weight is twin.second.weight

    def test_a_bias_tied_between_different_weights(self):
        model = Chain(first=nn.Linear(16, 16), second=nn.Linear(16, 16))
        model.second.bias = model.first.bias
        check_bytes(model)
        assert model.first.bias is model.second.bias
        assert model.first.int8_weights is not model.second.int8_weights


class TestEmbeddingAndHead:
    @staticmethod
    def language_model(tie=lambda weight: weight):
        model = nn.Module()
        model.embedding, model.body = nn.Embedding(64, 16), nn.Linear(16, 16)
        model.head = nn.Linear(16, 64, bias=False)
        model.head.weight = tie(model.embedding.weight)
        model.forward = lambda ids: model.head(model.body(model.embedding(ids)))
        return model

    @pytest.mark.parametrize(
        "tie", [lambda w: w, lambda w: nn.Parameter(w.data)], ids=["one Parameter", "one storage"]
    )
    def test_they_are_converted_once_and_share_the_tensors(self, tie):
        model = self.language_model(tie)
        float_table = model.embedding.weight.detach().clone()
        plan = check_bytes(model)
        assert {row.name: (row.verdict, row.reason) for row in plan.rows} == {
            "embedding.weight": ("int8", "converted"),
            "body.weight": ("int8", "converted"),
        }
        assert plan.rows[0].aliases == ("head.weight",)
        assert type(model.head) is w8a16.W8A16LinearLayer
        assert type(model.embedding) is W8A16Embedding
        assert model.head.int8_weights is model.embedding.int8_weights
        assert model.head.scales is model.embedding.scales
        codes, scales = model.head.int8_weights, model.head.scales
        assert error_in_half_steps(float_table, codes, scales).max() <= 1 + HALF_STEP_SLACK

    def test_it_equals_the_twin_which_is_tied_again(self):
        model, ids = self.language_model(), torch.tensor([[1, 63, 0], [7, 7, 2]])
        w8a16.quantize(model)
        output = model.head(model.body(model.embedding(ids)))
        w8a16.dequantize(model)
        assert model.head.weight is model.embedding.weight
        assert isinstance(model.head.weight, nn.Parameter)
        assert model.head.weight.requires_grad
        torch.testing.assert_close(model(ids), output, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("side", ["embedding", "head"])
    def test_excluding_one_spares_both(self, side):
        model = self.language_model()
        w8a16.quantize(model, exclude=side)
        assert type(model.head) is nn.Linear
        assert type(model.embedding) is nn.Embedding
        assert model.head.weight is model.embedding.weight

    def test_the_other_order_of_registration(self):
        model = nn.Module()
        model.head, model.embedding = nn.Linear(16, 64, bias=False), nn.Embedding(64, 16)
        model.embedding.weight = model.head.weight
        (row,) = check_bytes(model).rows
        assert (row.name, row.aliases) == ("head.weight", ("embedding.weight",))
        assert (row.reason, row.kind) == ("converted", "linear")
        assert model.head.int8_weights is model.embedding.int8_weights


class TestTiedToSomethingElse:
    def test_a_plain_attribute_of_another_module(self):
        model = Chain(first=nn.Linear(16, 16))
        model.table = model.first.weight
        (row,) = check_bytes(model).rows
        assert (row.verdict, row.reason, row.aliases) == ("int8", "stored", ("first.weight",))
        assert model.table_int8_weights is model.first.int8_weights
        assert torch.equal(model.table, model.first.weight)
        restored = w8a16.dequantize(model)
        assert restored.table is restored.first.weight

    def test_a_second_name_in_the_same_layer(self):
        layer, x = nn.Linear(16, 16), torch.randn(3, 16)
        layer.alias = layer.weight
        (row,) = check_bytes(layer).rows
        assert (row.verdict, row.aliases) == ("int8", ("alias",))
        assert layer.alias_int8_weights is layer.int8_weights
        layer.alias.zero_()
        assert torch.equal(layer(x), layer.bias.expand(3, 16))

    def test_a_parameter_that_lies_the_same_way_shares_only_equal_shapes(self):
        """A view of another shape is another weight, with rows and scales of its own."""
        model = Chain(first=nn.Linear(16, 16))
        model.table = nn.Parameter(model.first.weight.data.view(4, 64))
        assert [row.aliases for row in w8a16.plan(model).rows] == [(), ()]
        w8a16.quantize(model)
        assert model.table_scales.shape == (4,)
        assert model.first.scales.shape == (16,)

    def test_compiled_code_keeps_it_float(self):
        """int8 codes beside the float weight would add bytes, not save them."""
        model = Chain(first=nn.Linear(16, 16))
        traced = torch.fx.symbolic_trace(Chain(table=nn.Identity()))
        traced.weight = model.first.weight
        model.second = traced
        (row,) = check_bytes(model).rows
        assert (row.verdict, row.reason) == ("float", "tied_to_float")
        assert row.sentence.endswith(": second.weight")
        assert type(model.first) is nn.Linear

    def test_one_tied_layer_that_cannot_be_converted_keeps_the_other_float(self):
        model = Chain(first=nn.Linear(16, 16), second=nn.Linear(16, 16))
        model.second.weight = model.first.weight
        model.second.scales = "taken"
        (row,) = check_bytes(model).rows
        assert (row.verdict, row.reason) == ("float", "attribute_taken")
        assert type(model.first) is nn.Linear


class TestOneStorage:
    def test_two_parameters_on_one_storage_share_codes(self):
        model = Chain(first=nn.Linear(16, 16), second=nn.Linear(16, 16))
        model.second.weight = nn.Parameter(model.first.weight.data)
        plan = check_bytes(model)
        assert plan.rows[0].aliases == ("second.weight",)
        assert model.first.int8_weights is model.second.int8_weights

    def test_slices_of_one_storage_are_different_weights(self):
        fused = torch.randn(48, 16)
        model = Chain(**{name: nn.Linear(16, 16) for name in "qkv"})
        for layer, part in zip((model.q, model.k, model.v), fused.chunk(3), strict=True):
            layer.weight = nn.Parameter(part)
        plan = check_bytes(model)
        assert [row.verdict for row in plan.rows] == ["int8"] * 3
        stacked = torch.cat([layer.weight for layer in (model.q, model.k, model.v)])
        scales = torch.cat([layer.scales for layer in (model.q, model.k, model.v)])
        assert ((stacked - fused).abs() <= scales[:, None] / 2 * (1 + 2**-15)).all()

    def test_a_transposed_tie_is_another_weight_with_its_own_codes(self):
        """Rows of the one are columns of the other, so the scales cannot be shared."""
        model = Chain(down=nn.Linear(16, 32, bias=False), up=nn.Linear(32, 16, bias=False))
        model.up.weight = nn.Parameter(model.down.weight.data.t())
        model, twin = quantize_with_twin(model)
        assert model.up.int8_weights is not model.down.int8_weights
        assert_equals_twin(model, twin, torch.randn(3, 16))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_empty_weights_are_not_taken_for_tied():
    """Tensors without elements all have the address 0."""
    model = Chain(a=nn.Linear(0, 4), b=nn.Linear(0, 4))
    before = snapshot(model)
    assert [row.aliases for row in w8a16.plan(model).rows] == [(), ()]
    assert_unchanged(w8a16.quantize(model), before)
