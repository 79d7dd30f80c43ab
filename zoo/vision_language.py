"""Language models of transformers that read pictures among their tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.sizes import VIT
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


def llava_like(
    name: str,
    class_name: str,
    language: str,
    vision: str | None,
    inputs: Callable[[], dict[str, Tensor]],
    *,
    text: Mapping[str, object] | None = None,
    sight: Mapping[str, object] | None = None,
    **config: object,
) -> Entry:
    """A vision transformer and a language model of these types; `text` and `sight` are over their sizes."""
    vision_type = {} if vision is None else {"model_type": vision}
    return reader(
        name,
        class_name=class_name,
        inputs=inputs,
        text_config={**LANGUAGE, "model_type": language, **(text or {})},
        vision_config={**VIT, **vision_type, **(sight or {})},
        image_token_id=IMAGE,
        **config,
    )


ENTRIES: tuple[Entry, ...] = (
    llava_like("llava", "LlavaForConditionalGeneration", "llama", "clip_vision_model", pictures_in_text(16)),
    llava_like(
        "llava_next",
        "LlavaNextForConditionalGeneration",
        "llama",
        "clip_vision_model",
        lambda: {
            "input_ids": with_images(52),
            "pixel_values": torch.randn(BATCH, 3, 3, 32, 32),
            "image_sizes": torch.tensor([[32, 64]] * BATCH),
        },
        text={"max_position_embeddings": 128},
        image_grid_pinpoints=[[32, 64]],
    ),
    llava_like(
        "paligemma",
        "PaliGemmaForConditionalGeneration",
        "gemma",
        "siglip_vision_model",
        lambda: {
            **pictures_in_text(16)(),
            "token_type_ids": torch.zeros(BATCH, 24, dtype=torch.int64),
        },
        text={"head_dim": 16},
        sight={"projection_dim": 64},
        projection_dim=64,
    ),
    llava_like(
        "gemma3",
        "Gemma3ForConditionalGeneration",
        "gemma3_text",
        "siglip_vision_model",
        lambda: {
            **(made := pictures_in_text(4)()),
            "token_type_ids": (made["input_ids"] == IMAGE).long(),
        },
        text={"head_dim": 16, "sliding_window": 8},
        sight={"vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_id=IMAGE - 1,
        eoi_token_id=IMAGE - 2,
    ),
    llava_like(
        "idefics2",
        "Idefics2ForConditionalGeneration",
        "mistral",
        None,
        pictures_in_text(4, frames=True),
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "num_key_value_heads": 2,
            "resampler_head_dim": 16,
        },
    ),
    *(
        llava_like(name, class_name, "llama", None, pictures_in_text(4, frames=True), scale_factor=2)
        for name, class_name in (
            ("idefics3", "Idefics3ForConditionalGeneration"),
            ("smolvlm", "SmolVLMForConditionalGeneration"),
        )
    ),
    llava_like(
        "internvl",
        "InternVLForConditionalGeneration",
        "qwen2",
        "internvl_vision",
        pictures_in_text(4),
        sight={"image_size": [32, 32], "patch_size": [8, 8]},
        image_seq_length=4,
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
