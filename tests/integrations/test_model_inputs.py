"""Batches for models of every modality: from files, from data in packages, or random."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from support.pairs import SPECIAL, WORDS, tiny, write_tokenizer
from w8a16.errors import CheckpointError, ComparisonError, ResourceError, UsageError
from w8a16.integrations.model_inputs import Request, make_inputs, tokens_at_once
from w8a16.integrations.model_tasks import model_task

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(folder)
    return folder


def made(model, folder, **request):
    inputs = make_inputs(model, (folder,), model_task(model), Request(**request))
    with torch.no_grad():
        for batch in inputs.batches:
            model(**batch)  # it takes them
    return inputs


def llama():
    return tiny("LlamaForCausalLM", num_key_value_heads=1)


def vit(**config):
    small = {"image_size": 16, "patch_size": 8, **config}
    return tiny("ViTForImageClassification", **small)


def test_language_models_read_text_in_blocks(folder):
    inputs = made(llama(), folder, batches=3, tokens=64)
    assert [list(batch["input_ids"].shape) for batch in inputs.batches] == [[2, 32]] * 3
    assert inputs.random == ()
    assert "Python's documentation" in inputs.source


def test_encoders_read_texts_one_by_one(folder, tmp_path):
    (tmp_path / "text").write_text("the name\n\n  this is a value of the class  \nthe\n", encoding="utf-8")
    inputs = made(tiny("BertModel"), folder, text=tmp_path / "text", tokens=64)
    first, second = inputs.batches
    assert first["input_ids"].shape == (2, 7)
    assert first["attention_mask"].sum(1).tolist() == [2, 7]
    assert second["input_ids"].tolist() == [[len(SPECIAL) + WORDS.index("the")]]
    assert str(tmp_path / "text") in inputs.source


def test_a_decoder_gets_the_text_shifted(folder, tmp_path):
    (tmp_path / "text").write_text("this is the name")
    small = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    model = tiny("T5ForConditionalGeneration", **small, decoder_start_token_id=7)
    (batch,) = made(model, folder, text=tmp_path / "text").batches
    ids = batch["input_ids"]
    assert batch["decoder_input_ids"].tolist() == [[7, *ids[0, :-1].tolist()]]


def test_pictures_and_text_have_as_many_rows(folder):
    text = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1}
    vision["num_attention_heads"] = 2
    config = transformers.CLIPConfig(text_config={**text, "eos_token_id": 3}, vision_config=vision)
    inputs = made(transformers.CLIPModel(config).eval(), folder, batches=2)
    assert {len(tensor) for batch in inputs.batches for tensor in batch.values()} == {4}
    assert inputs.random == ("pixel_values",)
    assert inputs.source.endswith("random pixel_values")


@pytest.mark.parametrize("dataset", ["digits", "photographs"])
def test_pictures_of_packages(dataset, tmp_path):
    pytest.importorskip("sklearn")
    said = {"image_mean": [0.25, 0.5, 0.75], "image_std": [0.5, 0.25, 0.125]}
    plain = made(vit(), tmp_path, dataset=dataset, batches=2).batches
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    inputs = made(vit(), tmp_path, dataset=dataset, batches=2)
    assert inputs.random == ()
    for batch, usual in zip(inputs.batches, plain, strict=True):
        assert batch["pixel_values"].shape == (4, 3, 16, 16)
        raw = usual["pixel_values"] * 0.5 + 0.5
        assert -0.01 <= float(raw.min()) < float(raw.max()) <= 1.01
        mean, deviation = (torch.tensor(said[name]).view(3, 1, 1) for name in said)
        assert torch.allclose(batch["pixel_values"], (raw - mean) / deviation, atol=1e-5)


def test_spoken_words(tmp_path):
    pytest.importorskip("espeakng_loader")
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=32,
        conv_dim=[8, 8], conv_stride=[16, 16], conv_kernel=[32, 32], num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForCTC(config).eval()
    inputs = made(model, tmp_path, dataset="spoken-words", batches=2)
    assert inputs.random == ()
    for batch in inputs.batches:
        waves = batch["input_values"]
        assert len(waves) == 4
        assert 8_000 < waves.shape[1] < 64_000  # half a second to four
        assert 0.05 < float(waves.abs().max()) <= 1
    with pytest.raises(ComparisonError, match="BertModel takes no audio"):
        made(tiny("BertModel"), tmp_path, dataset="spoken-words")


def test_random_values_where_nothing_is_given(tmp_path):
    speech = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=32,
        conv_dim=[8, 8], conv_stride=[16, 16], conv_kernel=[32, 32], num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    whisper = transformers.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=64, num_mel_bins=8, max_source_positions=10,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    for model, random in [
        (vit(), ("pixel_values",)),
        (transformers.Wav2Vec2ForCTC(speech).eval(), ("input_values",)),
        (
            transformers.WhisperForConditionalGeneration(whisper).eval(),
            ("input_features", "decoder_input_ids"),
        ),
    ]:
        inputs = made(model, tmp_path, batches=2)
        assert inputs.random == random
        assert inputs.source == f"random {', '.join(random)}"
        again = made(model, tmp_path, batches=2)
        assert all(torch.equal(inputs.batches[i][random[0]], again.batches[i][random[0]]) for i in range(2))
        assert not torch.equal(inputs.batches[0][random[0]], inputs.batches[1][random[0]])


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "json"])
def test_arrays_of_a_file(suffix, tmp_path):
    ids = torch.randint(0, 64, (6, 5))
    mask = torch.ones(6, 5, dtype=torch.int64)
    file = tmp_path / f"inputs.{suffix}"
    if suffix == "safetensors":
        save_file({"input_ids": ids, "attention_mask": mask}, file)
    elif suffix == "npz":
        np.savez(file, input_ids=ids.numpy(), attention_mask=mask.numpy())
    else:
        file.write_text(json.dumps({"input_ids": ids.tolist(), "attention_mask": mask.tolist()}))
    inputs = made(tiny("BertModel"), tmp_path, inputs=file)
    assert [len(batch["input_ids"]) for batch in inputs.batches] == [4, 2]
    assert torch.equal(torch.cat([batch["input_ids"] for batch in inputs.batches]), ids)
    assert len(made(tiny("BertModel"), tmp_path, inputs=file, batches=1).batches) == 1


def test_whole_numbers_become_signals(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"pixel_values": [[[[1] * 16] * 16] * 3]}))
    (batch,) = made(vit(), tmp_path, inputs=tmp_path / "x.json").batches
    assert batch["pixel_values"].dtype == torch.float32


@pytest.mark.parametrize(
    "content, message",
    [
        ({"pixel_values": [[1.0]]}, r"BertModel does not take pixel_values \(images\); it takes input_ids, "),
        ({"attention_mask": [[1]]}, "BertModel needs input_ids; the file holds attention_mask"),
        ({"input_ids": [[1.5]]}, r"input_ids: expected integers, got torch\.float32"),
        ({"input_ids": [[64]]}, "expected token ids from 0 to 63, got 64 to 64"),
        ({"input_ids": [[-1, 3]]}, "expected token ids from 0 to 63, got -1 to 3"),
        ({"input_ids": []}, r"expected at least one sample, as many in each array; got input_ids \[0\]"),
        ({"input_ids": [[1]], "attention_mask": [[1], [1]]}, r"input_ids \[1, 1\], attention_mask \[2, 1\]"),
    ],
)
def test_arrays_that_the_model_does_not_take(content, message, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ComparisonError, match=message):
        made(tiny("BertModel"), tmp_path, inputs=tmp_path / "x.json")


def test_signals_that_are_not_finite(tmp_path):
    save_file({"pixel_values": torch.full((1, 3, 16, 16), float("nan"))}, tmp_path / "x.safetensors")
    with pytest.raises(ComparisonError, match="pixel_values: NaN or Inf among its values"):
        made(vit(), tmp_path, inputs=tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.json", b"{", "not JSON"),
        ("x.json", b"[1]", "expected an object of nested lists by input name"),
        ("x.json", b"{}", "holds no arrays"),
        (
            "x.json",
            b'{"input_ids": [[1], [1, 2]]}',
            "input_ids: expected nested lists of numbers, equally long",
        ),
        ("x.json", b'{"input_ids": "abc"}', "input_ids: expected nested lists of numbers"),
        ("x.npz", b"PK nothing", r"not an \.npz file"),
        (
            "x.csv",
            b"1,2",
            r"expected named arrays in a file that ends in \.safetensors, \.npz, \.json; text goes",
        ),
        ("x.safetensors", b"12345678901", "in a file of 11 bytes"),
    ],
)
def test_files_that_hold_no_arrays(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        made(tiny("BertModel"), tmp_path, inputs=tmp_path / name)


def test_no_such_file(folder, tmp_path):
    for request in (
        {"inputs": tmp_path / "none.json"},
        {"inputs": tmp_path / "none.npz"},
        {"text": tmp_path / "no"},
    ):
        with pytest.raises(ResourceError, match="no such file"):
            made(tiny("BertModel"), folder, **request)


@pytest.mark.parametrize(
    "content, message", [(b" \n\n", "no text in it"), (b"a\xff\xfe", "expected text in UTF-8")]
)
def test_text_files_without_text(content, message, folder, tmp_path):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        made(tiny("BertModel"), folder, text=tmp_path / "text")


def test_text_too_short_for_a_language_model(folder, tmp_path):
    (tmp_path / "text").write_text("the")
    with pytest.raises(CheckpointError, match="the text is less than two tokens"):
        made(llama(), folder, text=tmp_path / "text")


def test_the_wrong_modality(folder, tmp_path):
    (tmp_path / "text").write_text("the name")
    with pytest.raises(ComparisonError) as caught:
        made(vit(), folder, text=tmp_path / "text")
    assert str(caught.value) == (
        "ViTForImageClassification takes no text; it takes images (pixel_values): pass --dataset "
        "photographs, --dataset digits, or --inputs FILE with pixel_values"
    )
    with pytest.raises(
        ComparisonError, match=r"BertModel takes no images; it takes text .*: pass --text FILE"
    ):
        made(tiny("BertModel"), folder, dataset="digits")


def test_options_that_contradict_each_other(folder, tmp_path):
    with pytest.raises(
        UsageError, match=r"expected one of --inputs, --dataset and --text, got --dataset and --text"
    ):
        made(tiny("BertModel"), folder, dataset="digits", text=tmp_path)
    with pytest.raises(UsageError, match="--batches: expected at least 1, got 0"):
        made(tiny("BertModel"), folder, batches=0)
    with pytest.raises(UsageError, match=r"--dataset 'imagenet': expected one of: python-docs \(.*digits \("):
        made(tiny("BertModel"), folder, dataset="imagenet")


def test_no_tokenizer(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no tokenizer; expected tokenizer_config\.json and a vocabulary"
    ):
        made(tiny("BertModel"), tmp_path)


def test_without_a_vocabulary_every_word_would_be_unknown(folder):
    """transformers makes an empty tokenizer of such a folder, without a word."""
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        made(tiny("BertModel"), folder)


def test_a_tokenizer_that_knows_no_word_of_the_text(folder, tmp_path):
    (tmp_path / "text").write_text("zebras graze quietly")
    with pytest.raises(CheckpointError, match="knows not one word of the text"):
        made(tiny("BertModel"), folder, text=tmp_path / "text")


def test_the_tokenizer_of_a_larger_model(folder):
    with pytest.raises(
        CheckpointError, match="the model knows 8 tokens; is it the tokenizer of another model"
    ):
        made(tiny("BertModel", vocab_size=8), folder)


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="transformers cannot load its tokenizer"):
        made(tiny("BertModel"), folder)


def test_logits_limit_the_tokens_of_a_batch():
    encoder, decoder = tiny("BertModel"), llama()
    assert tokens_at_once(encoder, 1000, 100_000) == 100
    assert tokens_at_once(encoder, 1000, 10**9) == 512
    assert tokens_at_once(encoder, 1000, 10) == 16
    assert tokens_at_once(decoder, 1, 100 * 4 * 4 * 64) == 100
