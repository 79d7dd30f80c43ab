"""Task and inputs of a transformers model, by its class."""

import pytest
import torch

from w8a16.integrations.model_tasks import MODALITIES, model_task
from w8a16.study.compare import TASKS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

TEXT, PICTURE = ("input_ids",), ("pixel_values",)
EXPECTED = {
    "BertModel": ("embedding", TEXT, False),
    "BertForMaskedLM": ("classification", TEXT, False),
    "BertForSequenceClassification": ("classification", TEXT, False),
    "BertForQuestionAnswering": ("any", TEXT, False),
    "LlamaForCausalLM": ("language", TEXT, False),
    "LlamaModel": ("embedding", TEXT, False),
    "GPT2LMHeadModel": ("language", TEXT, False),
    "MambaForCausalLM": ("language", TEXT, False),
    "T5ForConditionalGeneration": ("seq2seq", TEXT, True),
    "T5Model": ("any", TEXT, True),
    "MarianMTModel": ("seq2seq", TEXT, True),
    "ViTForImageClassification": ("classification", PICTURE, False),
    "ViTModel": ("embedding", PICTURE, False),
    "Swin2SRForImageSuperResolution": ("image", PICTURE, False),
    "CLIPModel": ("embedding", (*TEXT, *PICTURE), False),
    "CLIPTextModel": ("embedding", TEXT, False),
    "CLIPVisionModel": ("embedding", PICTURE, False),
    "LlavaForConditionalGeneration": ("language", TEXT, False),
    "BlipForConditionalGeneration": ("language", (*PICTURE, *TEXT), False),
    "Wav2Vec2ForCTC": ("ctc", ("input_values",), False),
    "ASTForAudioClassification": ("classification", ("input_values",), False),
    "WhisperForConditionalGeneration": ("seq2seq", ("input_features",), True),
    "PatchTSTForPrediction": ("any", ("past_values",), False),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_by_class(name):
    found = getattr(transformers, name, None)
    if found is None:
        pytest.skip(f"this transformers has no {name}")
    with torch.device("meta"):
        model = found(found.config_class())
    task = model_task(model)
    assert (task.task, task.fields, task.has_decoder) == EXPECTED[name]


def test_the_names_are_known():
    assert {task for task, _, _ in EXPECTED.values()} <= TASKS.keys()
    assert {field for _, fields, _ in EXPECTED.values() for field in fields} <= MODALITIES.keys()


def test_modalities_in_words():
    with torch.device("meta"):
        model = transformers.CLIPModel(transformers.CLIPConfig())
    assert model_task(model).modalities == ("text", "images")
