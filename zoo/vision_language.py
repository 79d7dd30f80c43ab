"""Language models of transformers that read pictures among their tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import BATCH, VOCABULARY, picture, tokens

IMAGE = VOCABULARY - 1
"""The token that stands for one patch of a picture."""

LANGUAGE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 32,
    "patch_size": 8,
}
ROPE_SECTIONS = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": IMAGE - 1,
    "vision_start_token_id": IMAGE - 2,
    "vision_end_token_id": IMAGE - 3,
}

reader = partial(transformer, family="multimodal", generate=True)


def with_images(count: int) -> Tensor:
    """Tokens of which `count` in each row stand for the patches of a picture."""
    ids = tokens(count + 8).clamp(max=IMAGE - 8)
    ids[:, 2 : 2 + count] = IMAGE
    return ids


def pictures_in_text(count: int, *, frames: bool = False, **more: Tensor) -> Callable[[], dict[str, Tensor]]:
    """A maker of inputs: a picture for each row, in a dimension of its own with `frames`."""

    def make() -> dict[str, Tensor]:
        pixels = picture()["pixel_values"]
        return {
            "input_ids": with_images(count),
            "pixel_values": pixels[:, None] if frames else pixels,
            **more,
        }

    return make


def patches_in_text(width: int) -> Callable[[], dict[str, Tensor]]:
    """A maker of inputs as Qwen reads them: flat patches, four of which become one token."""

    def make() -> dict[str, Tensor]:
        ids = with_images(4)
        ids[:, 1] = IMAGE - 2
        return {
            "input_ids": ids,
            "pixel_values": torch.randn(BATCH * 16, width),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * BATCH),
            "mm_token_type_ids": (ids == IMAGE).long(),
        }

    return make


ENTRIES: tuple[Entry, ...] = (
    reader(
        "llava",
        class_name="LlavaForConditionalGeneration",
        inputs=pictures_in_text(16),
        text_config={**LANGUAGE, "model_type": "llama"},
        image_token_id=IMAGE,
        vision_config={**VISION, "model_type": "clip_vision_model"},
    ),
    reader(
        "llava_next",
        class_name="LlavaNextForConditionalGeneration",
        inputs=lambda: {
            "input_ids": with_images(52),
            "pixel_values": torch.randn(BATCH, 3, 3, 32, 32),
            "image_sizes": torch.tensor([[32, 64]] * BATCH),
        },
        text_config={**LANGUAGE, "model_type": "llama", "max_position_embeddings": 128},
        image_token_id=IMAGE,
        image_grid_pinpoints=[[32, 64]],
        vision_config={**VISION, "model_type": "clip_vision_model"},
    ),
    reader(
        "paligemma",
        class_name="PaliGemmaForConditionalGeneration",
        inputs=lambda: {
            **pictures_in_text(16)(),
            "token_type_ids": torch.zeros(BATCH, 24, dtype=torch.int64),
        },
        text_config={**LANGUAGE, "model_type": "gemma", "head_dim": 16},
        image_token_id=IMAGE,
        vision_config={**VISION, "model_type": "siglip_vision_model", "projection_dim": 64},
        projection_dim=64,
    ),
    reader(
        "gemma3",
        class_name="Gemma3ForConditionalGeneration",
        inputs=lambda: {
            **(made := pictures_in_text(4)()),
            "token_type_ids": (made["input_ids"] == IMAGE).long(),
        },
        text_config={**LANGUAGE, "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 8},
        vision_config={**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
        boi_token_id=IMAGE - 1,
        eoi_token_id=IMAGE - 2,
    ),
    reader(
        "idefics2",
        class_name="Idefics2ForConditionalGeneration",
        inputs=pictures_in_text(4, frames=True),
        text_config={**LANGUAGE, "model_type": "mistral"},
        vision_config=VISION,
        image_token_id=IMAGE,
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "num_key_value_heads": 2,
            "resampler_head_dim": 16,
        },
    ),
    reader(
        "idefics3",
        class_name="Idefics3ForConditionalGeneration",
        inputs=pictures_in_text(4, frames=True),
        text_config={**LANGUAGE, "model_type": "llama"},
        vision_config=VISION,
        image_token_id=IMAGE,
        scale_factor=2,
    ),
    reader(
        "smolvlm",
        class_name="SmolVLMForConditionalGeneration",
        inputs=pictures_in_text(4, frames=True),
        text_config={**LANGUAGE, "model_type": "llama"},
        vision_config=VISION,
        image_token_id=IMAGE,
        scale_factor=2,
    ),
    reader(
        "internvl",
        class_name="InternVLForConditionalGeneration",
        inputs=pictures_in_text(4),
        text_config={**LANGUAGE, "model_type": "qwen2"},
        image_token_id=IMAGE,
        image_seq_length=4,
        vision_config={
            **VISION,
            "model_type": "internvl_vision",
            "image_size": [32, 32],
            "patch_size": [8, 8],
        },
    ),
    reader(
        "qwen2_vl",
        class_name="Qwen2VLForConditionalGeneration",
        inputs=patches_in_text(3 * 2 * 8 * 8),
        text_config={**LANGUAGE, "rope_parameters": ROPE_SECTIONS},
        **QWEN_TOKENS,
        vision_config={
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
        },
    ),
    reader(
        "qwen2_5_vl",
        class_name="Qwen2_5_VLForConditionalGeneration",
        inputs=patches_in_text(3 * 2 * 8 * 8),
        text_config={**LANGUAGE, "rope_parameters": ROPE_SECTIONS},
        **QWEN_TOKENS,
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "out_hidden_size": 64,
            "num_heads": 4,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
    ),
)
