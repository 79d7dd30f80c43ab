"""Models of transformers that hold a picture against a text, or answer questions about it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.sizes import VIT
from zoo.tensors import BATCH, VOCABULARY, picture, text, text_and_picture, tokens

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
BERT = {key: value for key, value in TEXT.items() if key not in ("bos_token_id", "eos_token_id")}

pair = partial(transformer, family="multimodal", inputs=text_and_picture)


def video_and_texts() -> dict[str, Tensor]:
    """Four frames for each of two texts."""
    return {**text(), "pixel_values": torch.randn(BATCH, 4, 3, 32, 32)}


def queries() -> dict[str, Tensor]:
    """Two pictures with two names of things to find in each."""
    ids = torch.cat([tokens(6, BATCH * 2), torch.full((BATCH * 2, 1), VOCABULARY - 1)], 1)
    return {"input_ids": ids.clamp(min=3), **picture()}


ENTRIES: tuple[Entry, ...] = (
    pair("clip", class_name="CLIPModel", text_config=TEXT, vision_config=VIT, projection_dim=32),
    pair(
        "chinese_clip",
        class_name="ChineseCLIPModel",
        text_config=BERT,
        vision_config=VIT,
        projection_dim=32,
    ),
    pair(
        "altclip",
        class_name="AltCLIPModel",
        text_config={**TEXT, "project_dim": 32},
        vision_config=VIT,
        projection_dim=32,
    ),
    pair(
        "x_clip",
        class_name="XCLIPModel",
        inputs=video_and_texts,
        text_config=TEXT,
        vision_config={
            **VIT,
            "num_frames": 4,
            "mit_hidden_size": 64,
            "mit_intermediate_size": 128,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 4,
        },
        projection_dim=64,
        prompt_num_attention_heads=4,
    ),
    pair(
        "siglip",
        class_name="SiglipModel",
        text_config=TEXT,
        vision_config=VIT,
        note="its pooling head is nn.MultiheadAttention",
    ),
    pair(
        "siglip2",
        class_name="Siglip2Model",
        inputs=lambda: {
            **text(),
            "pixel_values": torch.randn(BATCH, 16, 192),
            "pixel_attention_mask": torch.ones(BATCH, 16, dtype=torch.int64),
            "spatial_shapes": torch.tensor([[4, 4], [2, 8]]),
        },
        text_config=TEXT,
        vision_config={**VIT, "num_patches": 16},
    ),
    pair(
        "align",
        class_name="AlignModel",
        text_config=BERT,
        projection_dim=80,
        temperature_init_value=1.0,
        vision_config={
            "image_size": 32,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.3,
            "hidden_dim": 80,
        },
    ),
    pair(
        "owlvit",
        class_name="OwlViTForObjectDetection",
        inputs=queries,
        text_config=TEXT,
        vision_config=VIT,
        projection_dim=64,
    ),
    pair(
        "blip",
        class_name="BlipForConditionalGeneration",
        generate=True,
        text_config={**TEXT, "encoder_hidden_size": 64, "sep_token_id": 2},
        vision_config=VIT,
    ),
    pair("git", class_name="GitForCausalLM", generate=True, vision_config=VIT, **TEXT),
    pair("vilt", class_name="ViltForImageAndTextRetrieval", **{**BERT, **VIT}),
    pair(
        "flava",
        class_name="FlavaModel",
        image_config=VIT,
        text_config=BERT,
        multimodal_config={
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        },
        image_codebook_config={"hidden_size": 8, "vocab_size": 32},
        hidden_size=64,
        projection_dim=32,
    ),
    pair(
        "bridgetower",
        class_name="BridgeTowerModel",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        text_config=BERT | {"bos_token_id": 1, "eos_token_id": 2},
        vision_config={"hidden_size": 64, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
        note="nn.MultiheadAttention in its picture tower",
    ),
)
