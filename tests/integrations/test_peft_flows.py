"""What people do with adapters of peft on int8 models of transformers; each is right, or says why not."""

import pytest
import torch
from torch import nn

import w8a16
from w8a16.errors import ModuleError, UsageError
from w8a16.layers import QuantizedModule

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

import w8a16.integrations.peft  # noqa: E402
from w8a16.integrations.transformers import attach, from_pretrained  # noqa: E402

IDS = torch.arange(3, 23).reshape(2, 10)
TINY = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": False,
}  # fmt: skip


def llama(**options):
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**TINY, **options}))


def int8_llama(**options):
    return attach(w8a16.quantize(llama(**options)))


def lora(model, names=("q_proj", "v_proj"), strength=0.1, **options):
    torch.manual_seed(3)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=list(names), **options))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += strength * torch.randn(parameter.shape)
    return model


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def gradients(model):
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_an_adapter_is_saved_and_loaded_on_an_int8_folder(tmp_path):
    llama().save_pretrained(tmp_path / "float")
    from_pretrained(tmp_path / "float").save_pretrained(tmp_path / "int8")
    model = lora(from_pretrained(tmp_path / "int8"))
    model.save_pretrained(tmp_path / "adapter")
    stored = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert stored < 20_000, "the adapter alone is stored"
    again = peft.PeftModel.from_pretrained(from_pretrained(tmp_path / "int8"), tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), logits(from_pretrained(tmp_path / "int8")))


@pytest.mark.parametrize("safe", [False, True])
def test_a_merged_model_is_saved_and_loaded_to_the_bit(tmp_path, safe):
    model = lora(int8_llama())
    expected = logits(model)
    merged = model.merge_and_unload(safe_merge=safe)
    assert isinstance(merged.model.layers[0].self_attn.q_proj, w8a16.W8A16LinearLayer)
    assert (logits(merged) - expected).norm() < 0.02 * expected.norm()
    assert len(w8a16.integrations.peft.merge_losses(merged)) == 4
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(from_pretrained(tmp_path)), logits(merged))


def test_tied_embeddings_stay_tied(tmp_path, recwarn):
    merged = lora(int8_llama(tie_word_embeddings=True)).merge_and_unload()
    assert merged.config.tie_word_embeddings
    assert merged.lm_head.int8_weights is merged.model.embed_tokens.int8_weights
    assert not [w for w in recwarn if "no longer tied" in str(w.message)]
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(from_pretrained(tmp_path)), logits(merged))


@pytest.mark.parametrize("names", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`")
def test_a_merge_into_a_tied_layer_leaves_the_other_alone(tmp_path, names):
    model = lora(int8_llama(tie_word_embeddings=True), names)
    base, expected, before = model.base_model.model, logits(model), int8_llama(tie_word_embeddings=True)
    model.merge_adapter()
    assert (logits(model) - expected).norm() < 0.02 * expected.norm()
    model.unmerge_adapter()
    tied = [getattr(layer, "base_layer", layer) for layer in (base.model.embed_tokens, base.lm_head)]
    assert tied[0].int8_weights is tied[1].int8_weights
    assert torch.equal(tied[0].int8_weights, before.lm_head.int8_weights)
    with pytest.warns(UserWarning, match="no longer tied"):
        merged = model.merge_and_unload()
    assert not merged.config.tie_word_embeddings
    assert (logits(merged) - expected).norm() < 0.02 * expected.norm()
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(from_pretrained(tmp_path)), logits(merged))


def test_adapters_that_are_to_stay_tied_are_refused():
    with pytest.raises(UsageError, match="ensure_weight_tying: peft does not see that int8 embeddings"):
        lora(int8_llama(tie_word_embeddings=True), ["embed_tokens"], ensure_weight_tying=True)


def test_an_adapted_embedding_is_loaded_with_its_int8_table(tmp_path):
    model = lora(int8_llama(), ["embed_tokens"])
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(int8_llama(), tmp_path)
    assert torch.equal(logits(again), logits(model))


def test_gradient_checkpointing_gives_the_same_gradients():
    expected = gradients(lora(int8_llama()))
    model = int8_llama()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = lora(model).train()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
        assert gradient.abs().max() > 0


def test_transformers_trainer_trains_the_adapter_and_nothing_else(tmp_path):
    model = lora(int8_llama())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=2, report_to=[], use_cpu=True, gradient_checkpointing=True, disable_tqdm=True,
        learning_rate=1e-2, save_strategy="no",
    )  # fmt: skip
    data = [{"input_ids": IDS[0], "labels": IDS[0]}] * 16
    transformers.Trainer(model, arguments, train_dataset=data).train()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_what_modules_to_save_names_is_trained_in_float(tmp_path):
    base = int8_llama()
    model = lora(base, modules_to_save=["lm_head"])
    head = model.base_model.model.lm_head
    assert isinstance(head.original_module, QuantizedModule)
    assert type(head.modules_to_save["default"]) is nn.Linear
    found = gradients(model)
    assert found["base_model.model.lm_head.modules_to_save.default.weight"].abs().max() > 0
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(int8_llama(), tmp_path)
    assert torch.equal(logits(again), logits(model))
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(int8_llama()))


def test_biases_that_are_buffers_cannot_be_trained():
    for bias in ("all", "lora_only"):
        with pytest.raises(UsageError, match=f"bias='{bias}': the bias of model.layers.0.self_attn.q_proj"):
            lora(int8_llama(attention_bias=True), bias=bias)
    assert lora(int8_llama(), bias="all") is not None, "there are none"


def test_target_parameters_on_int8_experts_are_refused():
    config = transformers.MixtralConfig(**TINY, num_local_experts=4)
    model = w8a16.quantize(transformers.MixtralForCausalLM(config))
    names = r"target_parameters: model\.layers\.0\.mlp\.experts\.gate_up_proj is int8"
    for target in ("experts.gate_up_proj", "model.layers.0.mlp.experts.gate_up_proj"):
        with pytest.raises(UsageError, match=names):
            lora(model, target_parameters=[target])
    model = w8a16.quantize(transformers.MixtralForCausalLM(config), exclude="*.experts")
    assert any(
        "experts" in name for name in gradients(lora(model, target_parameters=["experts.gate_up_proj"]))
    )


def test_torch_s_attention_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2)

    with pytest.raises(UsageError, match=r"target_modules: attention is an nn\.MultiheadAttention in int8"):
        lora(w8a16.quantize(Net()), ["attention"])


def test_offloaded_layers_are_not_merged():
    accelerate = pytest.importorskip("accelerate")
    from w8a16.layers.frozen import hold_as_parameters

    model = lora(hold_as_parameters(int8_llama()))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    accelerate.cpu_offload(layer.base_layer, execution_device="cpu")
    with pytest.raises(ModuleError, match="its tensors are offloaded, so a merge would be lost"):
        layer.merge()


def test_preparing_for_k_bit_training_leaves_the_codes_alone():
    model = attach(w8a16.quantize(llama().bfloat16()))
    codes = model.lm_head.int8_weights.clone()
    model = peft.prepare_model_for_kbit_training(model)
    assert torch.equal(model.lm_head.int8_weights, codes)
    assert model.lm_head.scales.dtype == model.model.norm.weight.dtype == torch.float32
    assert all(gradient.abs().max() > 0 for gradient in gradients(lora(model)).values())


def test_adapters_of_transformers_itself_and_of_from_pretrained():
    model = int8_llama()
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj"]))
    layer = model.model.layers[0].self_attn.q_proj
    before = layer.base_layer.int8_weights.clone()
    layer.lora_B["default"].weight.data.normal_(0, 0.1)
    layer.merge()
    assert not torch.equal(layer.base_layer.int8_weights, before)
    layer.unmerge()
    assert torch.equal(layer.base_layer.int8_weights, before)


@pytest.mark.parametrize("safe", [False, True])
def test_without_the_import_a_merge_is_right_and_unmerging_is_near(monkeypatch, safe):
    tuner = peft.tuners.tuners_utils.BaseTuner
    monkeypatch.setattr(tuner, "inject_adapter", tuner.inject_adapter.__wrapped__)
    base = int8_llama()
    expected_base = logits(base)
    model = lora(base)
    assert type(model.base_model.model.model.layers[0].self_attn.q_proj) is peft.tuners.lora.layer.Linear
    expected = logits(model)
    assert (expected - expected_base).norm() > 0.1 * expected.norm()
    model.merge_adapter(safe_merge=safe)
    assert (logits(model) - expected).norm() < 0.02 * expected.norm()
    model.unmerge_adapter()
    with model.disable_adapter():
        assert (logits(model) - expected_base).norm() < 0.02 * expected_base.norm()
