"""Models of transformers for regions, documents and any modality, and pairs of towers put together."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.multimodal import BERT, TEXT, pair
from zoo.sizes import VIT
from zoo.tensors import BATCH, VOCABULARY, picture, text, text_and_picture, tokens


def text_and_regions() -> dict[str, Tensor]:
    """Tokens and what a detector saw: features and boxes of five regions."""
    return {
        **text(),
        "visual_feats": torch.randn(BATCH, 5, 32),
        "visual_pos": torch.rand(BATCH, 5, 4),
    }


def text_and_visual_tokens() -> dict[str, Tensor]:
    """Tokens and embedded regions."""
    return {
        **text(),
        "visual_embeds": torch.randn(BATCH, 5, 32),
        "visual_attention_mask": torch.ones(BATCH, 5, dtype=torch.int64),
        "visual_token_type_ids": torch.ones(BATCH, 5, dtype=torch.int64),
    }


def document() -> dict[str, Tensor]:
    """Words, where they stand on the page, and the page."""
    corner = torch.randint(0, 30, (BATCH, 12, 2))
    return {
        **text_and_picture(),
        "bbox": torch.cat([corner, corner + torch.randint(1, 30, (BATCH, 12, 2))], -1),
    }


def words_on_a_page() -> dict[str, Tensor]:
    """The same without the picture of the page."""
    made = document()
    del made["pixel_values"]
    return made


ENTRIES: tuple[Entry, ...] = (
    pair(
        "lxmert",
        class_name="LxmertModel",
        inputs=text_and_regions,
        **BERT,
        l_layers=1,
        x_layers=1,
        r_layers=1,
        visual_feat_dim=32,
    ),
    pair(
        "visual_bert",
        class_name="VisualBertForPreTraining",
        inputs=text_and_visual_tokens,
        **BERT,
        visual_embedding_dim=32,
    ),
    pair(
        "layoutlm",
        class_name="LayoutLMForMaskedLM",
        inputs=words_on_a_page,
        **BERT,
        max_2d_position_embeddings=64,
    ),
    pair(
        "layoutlmv3",
        class_name="LayoutLMv3ForSequenceClassification",
        inputs=document,
        **BERT,
        coordinate_size=12,
        shape_size=8,
        max_2d_position_embeddings=64,
        input_size=32,
        patch_size=8,
        max_rel_pos=16,
        rel_pos_bins=8,
        max_rel_2d_pos=16,
        rel_2d_pos_bins=8,
    ),
    pair(
        "perceiver",
        class_name="PerceiverForMaskedLM",
        published=True,
        inputs=lambda: {"inputs": tokens()},
        num_latents=8,
        d_latents=64,
        d_model=64,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
        qk_channels=64,
        v_channels=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=12,
    ),
    pair(
        "vision_text_dual",
        class_name="VisionTextDualEncoderModel",
        projection_dim=32,
        text_config={**BERT, "model_type": "bert"},
        vision_config={**VIT, "model_type": "vit"},
        published=False,
    ),
    pair(
        "trocr",
        class_name="VisionEncoderDecoderModel",
        published=False,
        inputs=lambda: {**picture(), "decoder_input_ids": tokens(5)},
        encoder={**VIT, "model_type": "vit"},
        decoder={
            "model_type": "trocr",
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 256,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "add_cross_attention": True,
            "is_decoder": True,
        },
    ),
    pair(
        "groupvit",
        class_name="GroupViTModel",
        text_config=TEXT,
        projection_dim=32,
        projection_intermediate_dim=64,
        vision_config={
            **VIT,
            "depths": [1, 1],
            "num_group_tokens": [4, 0],
            "num_output_groups": [4, 4],
            "num_hidden_layers": 2,
        },
    ),
)
