"""Detection and segmentation of objects, from transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.sizes import VIT
from zoo.tensors import picture

RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 24, 32, 48],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
RESNET_50: dict[str, Any] = {
    "backbone_config": {"model_type": "resnet", "out_features": ["stage2", "stage3", "stage4"]},
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
"""The published backbone, without the library that the default configuration asks for."""

DETR = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "num_queries": 8,
    "num_labels": 5,
    "backbone_config": RESNET,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
SWIN = {
    "model_type": "swin",
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
scene = partial(transformer, family="vision", inputs=partial(picture, 64))


ENTRIES: tuple[Entry, ...] = (
    scene("detr", class_name="DetrForObjectDetection", published=RESNET_50, **DETR),
    scene("conditional_detr", class_name="ConditionalDetrForObjectDetection", published=RESNET_50, **DETR),
    scene(
        "deformable_detr",
        class_name="DeformableDetrForObjectDetection",
        published=RESNET_50,
        **DETR,
        num_feature_levels=4,
    ),
    scene("table_transformer", class_name="TableTransformerForObjectDetection", published=RESNET_50, **DETR),
    scene(
        "rt_detr",
        class_name="RTDetrForObjectDetection",
        backbone_config={**RESNET, "model_type": "rt_detr_resnet"},
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        encoder_hidden_dim=32,
        encoder_in_channels=[24, 32, 48],
        feat_strides=[8, 16, 32],
        encoder_layers=1,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        encode_proj_layers=[2],
        d_model=32,
        num_queries=8,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=64,
        num_feature_levels=3,
        decoder_n_points=2,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_denoising=0,
        num_labels=5,
        hidden_expansion=0.5,
    ),
    scene(
        "yolos",
        class_name="YolosForObjectDetection",
        inputs=picture,
        **{**VIT, "image_size": [32, 32]},
        num_detection_tokens=4,
        num_labels=5,
    ),
    scene(
        "maskformer",
        class_name="MaskFormerModel",
        backbone_config=SWIN,
        decoder_config={k: v for k, v in DETR.items() if not k.startswith(("backbone", "use_"))}
        | {"model_type": "detr"},
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=5,
    ),
    scene(
        "mask2former",
        class_name="Mask2FormerModel",
        backbone_config=SWIN,
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        num_attention_heads=2,
        dim_feedforward=64,
        encoder_feedforward_dim=64,
        encoder_layers=1,
        decoder_layers=3,
        num_queries=8,
        num_labels=5,
    ),
)
