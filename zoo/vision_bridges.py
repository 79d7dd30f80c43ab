"""Language models of transformers that look at pictures through queries or cross-attention."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.sizes import VIT
from zoo.tensors import BATCH, VOCABULARY, picture, tokens, two_texts
from zoo.vision_language import IMAGE, LANGUAGE, pictures_in_text, reader, with_images

OPT = {
    "model_type": "opt",
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 256,
    "word_embed_proj_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
QFORMER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "encoder_hidden_size": 64,
    "cross_attention_frequency": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def kosmos() -> dict[str, Tensor]:
    """Tokens of which four are replaced by what the picture says."""
    places = torch.zeros(BATCH, 12, dtype=torch.int64)
    places[:, 2:6] = 1
    return {**picture(), "input_ids": tokens(), "image_embeds_position_mask": places}


ENTRIES: tuple[Entry, ...] = (
    reader(
        "blip_2",
        class_name="Blip2ForConditionalGeneration",
        inputs=pictures_in_text(4),
        vision_config=VIT,
        qformer_config=QFORMER,
        text_config=OPT,
        num_query_tokens=4,
        image_token_index=IMAGE,
        image_text_hidden_size=32,
    ),
    reader(
        "instructblip",
        class_name="InstructBlipForConditionalGeneration",
        inputs=lambda: {**pictures_in_text(4)(), "qformer_input_ids": tokens(6)},
        vision_config=VIT,
        qformer_config=QFORMER,
        text_config=OPT,
        num_query_tokens=4,
        image_token_index=IMAGE,
    ),
    reader(
        "idefics",
        class_name="IdeficsForVisionText2Text",
        inputs=lambda: {
            "input_ids": tokens(),
            "pixel_values": torch.randn(BATCH, 1, 3, 32, 32),
            "image_attention_mask": torch.ones(BATCH, 12, 1, dtype=torch.int64),
        },
        generate=False,
        **{k: v for k, v in LANGUAGE.items() if k != "num_key_value_heads"},
        additional_vocab_size=4,
        cross_layer_interval=1,
        freeze_text_layers=False,
        freeze_vision_layers=False,
        vision_config={
            "embed_dim": 64,
            "image_size": 32,
            "patch_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
        },
    ),
    reader(
        "kosmos_2",
        class_name="Kosmos2ForConditionalGeneration",
        inputs=kosmos,
        latent_query_num=4,
        text_config={
            "vocab_size": VOCABULARY,
            "embed_dim": 64,
            "layers": 2,
            "ffn_dim": 256,
            "attention_heads": 4,
            "max_position_embeddings": 64,
        },
        vision_config=VIT,
    ),
    reader(
        "florence2",
        class_name="Florence2ForConditionalGeneration",
        inputs=lambda: {
            **two_texts(),
            **picture(32),
            "input_ids": with_images(5),
            "attention_mask": torch.ones(BATCH, 13, dtype=torch.int64),
        },
        image_token_id=IMAGE,
        text_config={
            "model_type": "bart",
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_position_embeddings": 64,
            "forced_eos_token_id": None,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={
            "embed_dim": [16, 16, 32, 64],
            "num_heads": [1, 1, 2, 4],
            "num_groups": [1, 1, 2, 4],
            "depths": [1, 1, 1, 1],
            "projection_dim": 64,
            "window_size": 4,
            "patch_size": [7, 3, 3, 3],
            "patch_stride": [2, 2, 2, 2],
            "patch_padding": [3, 1, 1, 1],
            "max_position_embeddings": 8,
        },
    ),
)
