"""Promptable segmentation, depth, matting, super-resolution and video models of transformers."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.detection import VIT, scene
from zoo.entry import Entry
from zoo.tensors import BATCH, picture

DINO_BACKBONE = {
    **VIT,
    "model_type": "dinov2",
    "out_features": ["stage1", "stage2"],
    "reshape_hidden_states": False,
    "apply_layernorm": True,
}


def points() -> dict[str, Tensor]:
    """A picture and one point in it to segment around."""
    return {**picture(64), "input_points": torch.rand(BATCH, 1, 1, 2) * 64}


def video() -> dict[str, Tensor]:
    """Four frames."""
    return {"pixel_values": torch.randn(BATCH, 4, 3, 32, 32)}


def video_to_complete() -> dict[str, Tensor]:
    """Four frames of which half the patches are hidden."""
    hidden = torch.zeros(BATCH, 32, dtype=torch.bool)
    hidden[:, ::2] = True
    return {**video(), "bool_masked_pos": hidden}


ENTRIES: tuple[Entry, ...] = (
    scene(
        "upernet",
        class_name="UperNetForSemanticSegmentation",
        backbone_config={
            "model_type": "convnext",
            "hidden_sizes": [16, 24, 32, 48],
            "depths": [1, 1, 1, 1],
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        hidden_size=32,
        auxiliary_in_channels=32,
        auxiliary_channels=16,
        num_labels=5,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
    ),
    scene(
        "sam",
        class_name="SamModel",
        inputs=points,
        vision_config={
            **{k: v for k, v in VIT.items() if k != "intermediate_size"},
            "mlp_dim": 256,
            "image_size": 64,
            "output_channels": 32,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 16,
        },
        prompt_encoder_config={
            "hidden_size": 32,
            "image_size": 64,
            "patch_size": 8,
            "mask_input_channels": 4,
            "image_embedding_size": 8,
        },
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 32,
        },
    ),
    scene(
        "dpt",
        class_name="DPTForSemanticSegmentation",
        inputs=picture,
        **{**VIT, "num_hidden_layers": 4},
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=32,
    ),
    scene(
        "depth_anything",
        class_name="DepthAnythingForDepthEstimation",
        inputs=picture,
        backbone_config=DINO_BACKBONE,
        reassemble_hidden_size=64,
        patch_size=8,
        reassemble_factors=[4, 2],
        neck_hidden_sizes=[16, 32],
        fusion_hidden_size=16,
    ),
    scene(
        "zoedepth",
        class_name="ZoeDepthForDepthEstimation",
        inputs=picture,
        backbone_config={
            **VIT,
            "model_type": "beit",
            "num_hidden_layers": 4,
            "reshape_hidden_states": False,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "use_relative_position_bias": True,
        },
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_ignore_stages=[],
        bottleneck_features=16,
        num_out_features=[16, 16, 16, 16],
        num_attractors=[4, 2, 1, 1],
        num_relative_features=16,
        bin_embedding_dim=16,
        num_patch_transformer_layers=1,
        patch_transformer_hidden_size=32,
        patch_transformer_intermediate_size=64,
        patch_transformer_num_attention_heads=2,
    ),
    scene(
        "swin2sr",
        class_name="Swin2SRForImageSuperResolution",
        inputs=picture,
        image_size=32,
        embed_dim=32,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
        upscale=2,
        note="pixel shuffle",
    ),
    scene(
        "vitmatte",
        class_name="VitMatteForImageMatting",
        published={"convstream_hidden_sizes": [48, 96, 192], "fusion_hidden_sizes": [256, 128, 64, 32]},
        inputs=lambda: {"pixel_values": torch.randn(BATCH, 4, 64, 64)},
        backbone_config={
            **VIT,
            "model_type": "vitdet",
            "num_channels": 4,
            "out_features": ["stage2"],
            "image_size": 64,
            "patch_size": 16,
            "pretrain_image_size": 64,
        },
        hidden_size=64,
        convstream_hidden_sizes=[8, 16, 24],
        fusion_hidden_sizes=[32, 24, 16, 8],
    ),
    scene("timesformer", class_name="TimesformerForVideoClassification", inputs=video, **VIT, num_frames=4),
    scene(
        "videomae",
        class_name="VideoMAEForPreTraining",
        inputs=video_to_complete,
        **VIT,
        num_frames=4,
        tubelet_size=2,
        decoder_num_attention_heads=2,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=64,
    ),
    scene(
        "vivit",
        class_name="VivitForVideoClassification",
        inputs=video,
        **VIT,
        num_frames=4,
        tubelet_size=[2, 8, 8],
    ),
    scene(
        "vjepa2",
        class_name="VJEPA2Model",
        inputs=lambda: {"pixel_values_videos": torch.randn(BATCH, 4, 3, 32, 32)},
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        pred_hidden_size=48,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    ),
)
