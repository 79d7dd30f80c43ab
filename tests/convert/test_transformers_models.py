"""Tiny models of several families, built from configurations (nothing is downloaded)."""

import copy

import pytest
import torch

import w8a16
from support.twins import assert_equals_twin, count_int8, make_twin

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

VOCABULARY, LENGTH = 99, 11
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def bert():
    return transformers.BertModel(transformers.BertConfig(vocab_size=VOCABULARY, **SIZES))


def bert_for_masked_lm():
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=VOCABULARY, **SIZES))


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, **TOKENS
    )
    return transformers.GPT2LMHeadModel(config)


def llama(**options):
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, num_key_value_heads=2, tie_word_embeddings=False, **SIZES, **TOKENS, **options
    )
    return transformers.LlamaForCausalLM(config)


def t5():
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        **TOKENS,
    )
    return transformers.T5ForConditionalGeneration(config)


def vit():
    return transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SIZES))


def whisper():
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=20,
        max_target_positions=20,
        decoder_start_token_id=1,
        **TOKENS,
    )
    return transformers.WhisperForConditionalGeneration(config)


def text():
    return {"input_ids": torch.randint(3, VOCABULARY, (2, LENGTH))}


def padded_text():
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[0, :4] = 0
    return {**text(), "attention_mask": mask}


def both_texts():
    return {**padded_text(), "decoder_input_ids": torch.randint(3, VOCABULARY, (2, 5))}


def image():
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


def sound():
    return {
        "input_features": torch.randn(2, 8, 40),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (2, 5)),
    }


FAMILIES = {
    "bert": (bert, padded_text),
    "bert for masked lm": (bert_for_masked_lm, padded_text),
    "gpt2": (gpt2, padded_text),
    "llama": (llama, padded_text),
    "t5": (t5, both_texts),
    "vit": (vit, image),
    "whisper": (whisper, sound),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A quantized model, its twin, and inputs for both; nothing in a test may change them."""
    build, inputs = FAMILIES[request.param]
    torch.manual_seed(0)
    model = w8a16.quantize(build().eval())
    assert count_int8(model) >= 8
    return model, make_twin(model), inputs()


def test_it_equals_the_twin(family):
    model, twin, inputs = family
    with torch.no_grad():
        assert_equals_twin(model, twin, inputs)


def test_it_equals_the_twin_with_hidden_states_and_gradients_on(family):
    model, twin, inputs = family
    assert_equals_twin(model, twin, {**inputs, "output_hidden_states": True})


def test_device_and_dtype_are_still_found(family):
    """transformers looks at the parameters; norms and biases remain."""
    model, twin, _ = family
    assert model.device == twin.device == torch.device("cpu")
    assert model.dtype == twin.dtype == torch.float32


def test_every_weight_has_a_verdict(family):
    model, twin, _ = family
    before, after = w8a16.plan(twin), w8a16.plan(model)
    assert {row.reason for row in before.rows if row.verdict == "float"} <= {"vector", "bias", "not_smaller"}
    assert before.coverage > 0.99
    assert {row.reason for row in after.rows if row.verdict == "int8"} == {"already_quantized"}
    assert before.bytes_after == after.bytes_after
    assert [name for name, p in model.named_parameters() if p.dim() >= 2] == [
        row.name for row in after.rows if row.verdict == "float"
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moves_change_what_dtype_says(dtype):
    model = w8a16.quantize(bert().eval()).to(dtype)
    assert model.dtype == dtype
    assert model.pooler.dense.weight.dtype == dtype
    assert model.pooler.dense.scales.dtype == torch.float32
    assert model(**padded_text()).last_hidden_state.dtype == dtype


def test_gpt2_and_its_own_linear_class():
    model = gpt2().eval()
    plan = w8a16.plan(model)
    assert {(row.module_type, row.kind, row.reason) for row in plan.rows} == {
        ("Conv1D", "transposed_linear", "converted"),
        ("Embedding", "embedding", "converted"),
    }
    assert [row.aliases for row in plan.rows if row.aliases] == [("lm_head.weight",)]
    w8a16.quantize(model)
    assert model.lm_head.int8_weights is model.transformer.wte.int8_weights
    assert model.transformer.h[0].attn.c_attn.int8_weights.shape == (96, 32)  # turned: output first


@pytest.mark.parametrize("build", [t5, llama, gpt2])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}], ids=str)
def test_generate_gives_the_tokens_of_the_twin(build, options):
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # spreads the logits, so that no rounding decides a token
    w8a16.quantize(model)
    outputs = []
    for module in (model, make_twin(model)):
        torch.manual_seed(6)
        prompt = torch.arange(3, 3 + LENGTH).repeat(2, 1)
        outputs.append(module.generate(input_ids=prompt, max_new_tokens=16, min_new_tokens=16, **options))
    assert outputs[0].shape[1] > 16
    assert len(outputs[0].unique()) > 3
    assert torch.equal(outputs[0], outputs[1])


def test_the_tied_head_of_t5_shares_the_int8_table():
    model = w8a16.quantize(t5())
    rows = {row.name: row for row in w8a16.plan(model).rows}
    assert rows["shared.weight"].reason == "already_quantized"
    assert "lm_head.weight" in rows["shared.weight"].aliases
    tables = (model.lm_head, model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens)
    assert len({id(table.int8_weights) for table in tables}) == 1
    restored = w8a16.dequantize(model)
    assert restored.lm_head.weight is restored.shared.weight


@pytest.mark.parametrize("build", [t5, gpt2, bert_for_masked_lm])
def test_tying_again_after_the_conversion_changes_nothing(build):
    model = w8a16.quantize(build())
    codes = {id(buffer) for name, buffer in model.named_buffers() if name.endswith("int8_weights")}
    model.tie_weights()
    assert {id(b) for name, b in model.named_buffers() if name.endswith("int8_weights")} == codes
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.int8_weights is table.int8_weights


def test_training_of_the_embeddings_through_quantized_layers():
    model, inputs = w8a16.quantize(llama(), exclude="model.embed_tokens"), text()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert model.model.embed_tokens.weight.grad.norm() > 0


def test_gradient_checkpointing():
    model, inputs = w8a16.quantize(llama(), exclude="*.embed_tokens").train(), text()
    twin = make_twin(model)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable()
    for module in (model, twin):
        module(**inputs, labels=inputs["input_ids"]).loss.backward()
    ours, theirs = (module.model.embed_tokens.weight.grad for module in (model, twin))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_save_pretrained_of_a_dequantized_model(tmp_path):
    model = w8a16.quantize(bert().eval())
    inputs = padded_text()
    with torch.no_grad():
        before = model(**inputs).last_hidden_state
        w8a16.dequantize(copy.deepcopy(model)).save_pretrained(tmp_path)
        loaded = transformers.BertModel.from_pretrained(tmp_path).eval()
        error = (loaded(**inputs).last_hidden_state - before).norm() / before.norm()
    assert error <= 1e-5
