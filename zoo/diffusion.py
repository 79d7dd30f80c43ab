"""Diffusion models of diffusers made of convolutions: U-Nets and autoencoders."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import diffuser
from zoo.tensors import BATCH

CONTEXT = 8
UNET = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
CROSS = {
    **UNET,
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "cross_attention_dim": 32,
}
CODEC = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
}
CODEC_PUBLISHED = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
"""Stable Diffusion's; the defaults are those of a toy."""


def noise(*shape: int) -> dict[str, Tensor]:
    """A noisy sample and its time step."""
    return {"sample": torch.randn(BATCH, *shape), "timestep": torch.tensor([3, 7])}


def noise_and_text(*shape: int) -> dict[str, Tensor]:
    """The same with the encoded text beside it."""
    return {**noise(*shape), "encoder_hidden_states": torch.randn(BATCH, CONTEXT, 32)}


ENTRIES: tuple[Entry, ...] = (
    diffuser(
        "unet_1d",
        "UNet1DModel",
        lambda: noise(14, 32),
        sample_size=32,
        in_channels=14,
        out_channels=14,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        time_embedding_type="positional",
        extra_in_channels=32,
        layers_per_block=1,
        down_block_types=("DownBlock1DNoSkip", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1DNoSkip"),
        flip_sin_to_cos=True,
    ),
    diffuser(
        "unet_2d",
        "UNet2DModel",
        lambda: noise(3, 16, 16),
        sample_size=16,
        **UNET,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
    diffuser(
        "unet_2d_condition",
        "UNet2DConditionModel",
        lambda: noise_and_text(4, 8, 8),
        **CROSS,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        note="Stable Diffusion",
    ),
    diffuser(
        "unet_2d_linear",
        "UNet2DConditionModel",
        lambda: {
            **noise_and_text(4, 8, 8),
            "added_cond_kwargs": {
                "text_embeds": torch.randn(BATCH, 16),
                "time_ids": torch.randint(0, 9, (BATCH, 6)),
            },
        },
        **CROSS,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
        transformer_layers_per_block=(2, 1),
        published=False,
        note="Stable Diffusion XL",
    ),
    diffuser(
        "controlnet",
        "ControlNetModel",
        lambda: {**noise_and_text(4, 8, 8), "controlnet_cond": torch.randn(BATCH, 3, 64, 64)},
        **{k: v for k, v in CROSS.items() if k != "sample_size"},
        conditioning_embedding_out_channels=(8, 16, 24, 32),
        note="starts from layers of zeros",
    ),
    diffuser(
        "autoencoder_kl",
        "AutoencoderKL",
        lambda: {"sample": torch.randn(BATCH, 3, 16, 16)},
        published=CODEC_PUBLISHED,
        **CODEC,
    ),
    diffuser(
        "vq_model",
        "VQModel",
        lambda: {"sample": torch.randn(BATCH, 3, 16, 16)},
        published=CODEC_PUBLISHED,
        **CODEC,
        latent_channels=4,
        num_vq_embeddings=64,
    ),
    diffuser(
        "autoencoder_tiny",
        "AutoencoderTiny",
        lambda: {"sample": torch.randn(BATCH, 3, 16, 16)},
        encoder_block_out_channels=(16, 16, 16, 16),
        decoder_block_out_channels=(16, 16, 16, 16),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ),
)
