"""Diffusion transformers of diffusers, for pictures and videos."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import diffuser
from zoo.tensors import BATCH

CONTEXT = 8
HEADS = {"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 16}


def latent(*shape: int, width: int = 32) -> dict[str, Tensor]:
    """A noisy latent, as the transformers name it, its time step and the encoded text."""
    return {
        "hidden_states": torch.randn(BATCH, *shape),
        "timestep": torch.tensor([3, 7]),
        "encoder_hidden_states": torch.randn(BATCH, CONTEXT, width),
    }


def flux() -> dict[str, Tensor]:
    """A packed latent with the places of its tokens."""
    return {
        **latent(16, 16),
        "timestep": torch.tensor([0.3, 0.7]),
        "pooled_projections": torch.randn(BATCH, 24),
        "guidance": torch.ones(BATCH),
        "img_ids": torch.randint(0, 4, (16, 3)),
        "txt_ids": torch.zeros(CONTEXT, 3),
    }


ENTRIES: tuple[Entry, ...] = (
    diffuser(
        "dit",
        "DiTTransformer2DModel",
        lambda: {
            "hidden_states": torch.randn(BATCH, 4, 8, 8),
            "timestep": torch.tensor([3, 7]),
            "class_labels": torch.tensor([1, 2]),
        },
        transformer_like=True,
        **HEADS,
        sample_size=8,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=16,
    ),
    diffuser(
        "pixart",
        "PixArtTransformer2DModel",
        lambda: {**latent(4, 8, 8), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
        transformer_like=True,
        **HEADS,
        sample_size=8,
        caption_channels=32,
        cross_attention_dim=64,
        use_additional_conditions=False,
    ),
    diffuser(
        "sd3",
        "SD3Transformer2DModel",
        lambda: {**latent(4, 8, 8), "pooled_projections": torch.randn(BATCH, 24)},
        transformer_like=True,
        **HEADS,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pooled_projection_dim=24,
        pos_embed_max_size=8,
    ),
    diffuser(
        "flux",
        "FluxTransformer2DModel",
        flux,
        transformer_like=True,
        **HEADS,
        num_single_layers=2,
        in_channels=16,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    ),
    diffuser(
        "auraflow",
        "AuraFlowTransformer2DModel",
        lambda: {**latent(4, 8, 8), "timestep": torch.tensor([0.3, 0.7])},
        transformer_like=True,
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pos_embed_max_size=16,
    ),
    diffuser(
        "sana",
        "SanaTransformer2DModel",
        lambda: latent(4, 8, 8),
        transformer_like=True,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=4,
        attention_head_dim=16,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=32,
        sample_size=8,
    ),
    diffuser(
        "ltx_video",
        "LTXVideoTransformer3DModel",
        lambda: {
            **latent(16, 8),
            "encoder_attention_mask": torch.ones(BATCH, CONTEXT, dtype=torch.int64),
            "num_frames": 4,
            "height": 2,
            "width": 2,
        },
        transformer_like=True,
        **HEADS,
        in_channels=8,
        out_channels=8,
        cross_attention_dim=64,
        caption_channels=32,
    ),
    diffuser(
        "cogvideox",
        "CogVideoXTransformer3DModel",
        lambda: latent(2, 4, 8, 8),
        transformer_like=True,
        **HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=32,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=CONTEXT,
    ),
    diffuser(
        "wan",
        "WanTransformer3DModel",
        lambda: latent(4, 2, 8, 8),
        transformer_like=True,
        **HEADS,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=16,
        ffn_dim=128,
        rope_max_seq_len=32,
    ),
    diffuser(
        "prior",
        "PriorTransformer",
        lambda: {
            "hidden_states": torch.randn(BATCH, 32),
            "timestep": torch.tensor([3, 7]),
            "proj_embedding": torch.randn(BATCH, 32),
            "encoder_hidden_states": torch.randn(BATCH, CONTEXT, 32),
        },
        transformer_like=True,
        **HEADS,
        embedding_dim=32,
        num_embeddings=CONTEXT,
        additional_embeddings=4,
    ),
)
