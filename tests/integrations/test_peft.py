"""Adapters of peft on int8 layers: as on the float twin, merged with one rounding, unmerged to the bit."""

import copy
import importlib
import pickle
import re
import sys

import pytest
import torch
from torch import nn

import w8a16
from w8a16.convert import Recipe
from w8a16.errors import MissingExtraError, ModuleError, W8A16Warning, WeightValueError

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")]

from peft import get_peft_model  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402

from w8a16.integrations.peft import install, merge_losses  # noqa: E402

IDS = torch.arange(14).reshape(2, 7)
LINEAR, TRANSPOSED, TABLE, CONVOLUTION = ["first", "second"], ["turned"], ["table"], ["conv"]
CONFIGS = {
    "lora": lambda names: peft.LoraConfig(r=4, target_modules=names),
    "lora-bias": lambda names: peft.LoraConfig(r=4, target_modules=names, lora_bias=True),
    "dora": lambda names: peft.LoraConfig(r=4, target_modules=names, use_dora=True),
    "adalora": lambda names: peft.AdaLoraConfig(r=4, target_modules=names, total_step=9),
    "loha": lambda names: peft.LoHaConfig(r=4, target_modules=names),
    "lokr": lambda names: peft.LoKrConfig(r=4, target_modules=names),
    "ia3": lambda names: peft.IA3Config(target_modules=names, feedforward_modules=[]),
    "oft": lambda names: peft.OFTConfig(oft_block_size=8, target_modules=names),
    "tokens": lambda names: peft.TrainableTokensConfig(token_indices=[3, 5], target_modules=names),
    "vera": lambda names: peft.VeraConfig(r=4, target_modules=names),
}
CASES = [
    *((method, LINEAR) for method in CONFIGS if method not in ("lora-bias", "tokens")),
    ("lora-bias", ["first"]),
    *((method, TRANSPOSED) for method in ("lora", "dora", "adalora", "ia3", "vera")),
    *((method, TABLE) for method in ("lora", "dora", "oft", "tokens")),
    *((method, CONVOLUTION) for method in ("lora", "dora", "loha", "lokr")),
]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 32)
        self.first = nn.Linear(32, 48)
        self.second = nn.Linear(48, 32, bias=False)
        self.turned = Conv1D(32, 32)
        self.conv = nn.Conv1d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, ids):
        x = self.second(torch.relu(self.first(self.table(ids))))
        return self.head(self.conv(self.turned(x).transpose(1, 2)).transpose(1, 2))


def int8_net(**options):
    torch.manual_seed(1)
    return w8a16.quantize(Net(), **options)


def adapted(model, config, seed=5, strength=0.1):
    """With adapters that do something: peft's own start as nothing."""
    torch.manual_seed(seed)
    model = get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += strength * torch.randn(parameter.shape)
    return model


def pair(method, names, **options):
    base = int8_net(**options)
    twin = w8a16.dequantize(copy.deepcopy(base))
    return adapted(base, CONFIGS[method](list(names))), adapted(twin, CONFIGS[method](list(names)))


def gradients(model):
    model(IDS).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def held(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unlike(model, before):
    return [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]


def apart(value, reference):
    return float((value - reference).detach().norm() / reference.detach().norm())


@pytest.mark.parametrize("method, names", CASES, ids=[f"{method}-{names[0]}" for method, names in CASES])
def test_every_method_is_as_on_the_float_twin(method, names):
    model, twin = pair(method, names)
    base = apart(twin(IDS), int8_net()(IDS))
    assert base > 1e-3, "the adapter does nothing, so nothing is tested"
    assert apart(model(IDS), twin(IDS)) < 1e-6
    ours, theirs = gradients(model), gradients(twin)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in theirs.items():
        assert apart(ours[name], gradient) < 1e-5, name

    expected, before = twin(IDS).detach(), held(model)
    for safe in (False, True):
        model.merge_adapter(safe_merge=safe)
        assert unlike(model, before)
        assert apart(model(IDS), expected) < min(2e-3, base / 3)
        losses = merge_losses(model)
        assert {name.split(".")[2] for name in losses} == set(names)
        assert all(loss.sqnr_db > 35 for loss in losses.values())
        model.unmerge_adapter()
        assert unlike(model, before) == []
        assert merge_losses(model) == {}


def test_a_merge_rounds_the_sum_once_whatever_the_dtype():
    torch.manual_seed(1)
    model = adapted(w8a16.quantize(Net().bfloat16()), CONFIGS["lora"](["first"]))
    layer = model.base_model.model.first
    exact = layer.base_layer.dequantized("weight", torch.float32) + layer.get_delta_weight("default")
    model.merge_adapter()
    expected = w8a16.W8A16LinearLayer(32, 48).quantize(exact)
    assert torch.equal(layer.base_layer.int8_weights, expected.int8_weights)
    assert torch.equal(layer.base_layer.scales, expected.scales)
    assert layer.base_layer.weight.dtype == layer.base_layer.bias.dtype == torch.bfloat16


def test_the_bias_of_an_adapter_is_merged_in_the_dtype_of_the_layer():
    torch.manual_seed(1)
    model = adapted(w8a16.quantize(Net().bfloat16()), CONFIGS["lora-bias"](["first"]))
    before = held(model)
    for safe in (False, True):
        model.merge_adapter(safe_merge=safe)
        bias = model.base_model.model.first.base_layer.bias
        assert bias.dtype == torch.bfloat16
        assert not torch.equal(bias, before["base_model.model.first.base_layer.bias"])
        model.unmerge_adapter()
        assert unlike(model, before) == []


REFINED = ("first", "table", "turned")


@pytest.mark.parametrize(
    "recipe",
    [Recipe(group_size=dict.fromkeys(REFINED, 16)), Recipe(outliers=dict.fromkeys(REFINED, 2))],
    ids=["groups", "outliers"],
)
def test_refined_weights_keep_their_layout(recipe):
    model, twin = pair("lora", REFINED, recipe=recipe)
    assert apart(model(IDS), twin(IDS)) < 1e-6
    layers = [getattr(model.base_model.model, name).base_layer for name in REFINED]
    before, layouts = held(model), [layer.layouts["weight"] for layer in layers]
    assert all(layout.refinement is not None for layout in layouts)
    model.merge_adapter()
    assert [layer.layouts["weight"] for layer in layers] == layouts
    assert all(loss.sqnr_db > 44 for loss in merge_losses(model).values())
    assert apart(model(IDS), twin(IDS)) < 5e-3
    model.unmerge_adapter()
    assert unlike(model, before) == []


def test_two_adapters_merge_with_one_rounding_and_one_after_the_other():
    models = []
    for base in (int8_net(), w8a16.dequantize(int8_net())):
        config = CONFIGS["lora"](["first"])
        both = adapted(base, config)
        torch.manual_seed(9)
        both.add_adapter("other", config)
        both.base_model.set_adapter(["default", "other"])
        both.base_model.model.first.lora_B["other"].weight.data.normal_(0, 0.1)
        models.append(both)
    model, twin = models
    before, result = held(model), twin(IDS)
    model.merge_adapter(["default", "other"])
    at_once = merge_losses(model)["base_model.model.first.base_layer.weight"]
    assert apart(model(IDS), result) < 2e-3
    model.unmerge_adapter()
    model.merge_adapter(["default"])
    model.merge_adapter(["other"])
    assert apart(model(IDS), result) < 2e-3
    assert merge_losses(model)["base_model.model.first.base_layer.weight"].sqnr_db >= at_once.sqnr_db - 1
    model.unmerge_adapter()
    assert unlike(model, before) == []


def test_disabling_a_merged_adapter_gives_the_base_to_the_bit():
    base = int8_net()
    expected = base(IDS).clone()
    model = adapted(base, CONFIGS["lora"](LINEAR))
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(IDS), expected)


def test_copies_of_a_merged_model_can_be_unmerged():
    model = adapted(int8_net(), CONFIGS["lora"](LINEAR))
    before = held(model)
    model.merge_adapter()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IDS), model(IDS))
        other.unmerge_adapter()
        assert unlike(other, before) == []


def test_a_merge_in_inference_mode_leaves_a_model_that_can_be_trained():
    model = adapted(int8_net(), CONFIGS["lora"](["first"]))
    with torch.inference_mode():
        model.merge_adapter(["default"])
    model.add_adapter("other", CONFIGS["lora"](["second", "table"]))
    model.set_adapter("other")
    assert all(gradient is not None for gradient in gradients(model).values())


def test_sharded_layers_are_not_merged():
    class Shard(torch.Tensor):
        pass

    model = adapted(int8_net(), CONFIGS["lora"](["first"]))
    layer = model.base_model.model.first
    layer.base_layer.hold("int8_weights", layer.base_layer.int8_weights.as_subclass(Shard))
    with pytest.raises(ModuleError, match=r"its tensors are sharded \(Shard\), so a merge would be lost"):
        model.merge_adapter()


def test_each_row_of_a_batch_can_have_its_adapter():
    model = adapted(int8_net(), CONFIGS["lora"](["first"])).eval()
    with torch.no_grad():
        mixed = model(IDS, adapter_names=["default", "__base__"])
        adapter = model(IDS)
        with model.disable_adapter():
            base = model(IDS)
    torch.testing.assert_close(mixed, torch.stack([adapter[0], base[1]]))
    assert not torch.equal(mixed, base)


def test_codes_that_changed_since_the_merge_are_not_put_back():
    model = adapted(int8_net(), CONFIGS["lora"](["first"]))
    model.merge_adapter()
    model.base_model.model.first.base_layer.quantize(torch.randn(48, 32))
    with pytest.raises(ModuleError, match="cannot unmerge default: the codes have changed since the merge"):
        model.unmerge_adapter()
    assert model.base_model.model.first.merged


@pytest.mark.parametrize("safe, error", [(False, WeightValueError), (True, ValueError)])
def test_a_merge_that_fails_changes_nothing(safe, error):
    model = adapted(int8_net(), CONFIGS["lora-bias"](["first"]))
    model.base_model.model.first.lora_B["default"].weight.data[0, 0] = float("nan")
    before = held(model)
    with pytest.raises(error):
        model.merge_adapter(safe_merge=safe)
    assert [name for name in unlike(model, before) if "lora_B" not in name] == []
    assert not model.base_model.model.first.merged


def test_an_adapter_smaller_than_the_rounding_warns():
    model = adapted(int8_net(), CONFIGS["lora"](["first"]), strength=1e-6)
    with pytest.warns(W8A16Warning, match="changed some of them more than the adapter did"):
        model.merge_adapter()
    assert merge_losses(model)["base_model.model.first.base_layer.weight"].adapter_db < 0


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "w8a16.integrations.peft")
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'w8a16[peft]'")):
        importlib.import_module("w8a16.integrations.peft")


def test_installing_twice_wraps_once():
    from peft.tuners.tuners_utils import BaseTuner

    before = BaseTuner.inject_adapter
    install()
    assert BaseTuner.inject_adapter is before


def test_float_models_are_as_before():
    model = adapted(Net(), CONFIGS["lora"](LINEAR))
    assert type(model.base_model.model.first) is peft.tuners.lora.layer.Linear
    expected = model(IDS)
    torch.testing.assert_close(model.merge_and_unload()(IDS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", ["pissa", "olora", "gaussian"])
def test_starts_that_split_the_base_weight_keep_the_sum(start):
    expected = int8_net()(IDS)
    torch.manual_seed(5)
    config = peft.LoraConfig(r=4, target_modules=["first"], init_lora_weights=start)
    assert apart(get_peft_model(int8_net(), config)(IDS), expected) < 5e-3
