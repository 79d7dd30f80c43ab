"""Vision transformers and their hierarchical relatives, from transformers."""

from __future__ import annotations

from functools import partial

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.sizes import VIT
from zoo.tensors import picture

WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 32,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
PYRAMID = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [32, 64],
    "num_attention_heads": [1, 2],
}

vision = partial(transformer, family="vision", inputs=picture)
pyramid = partial(vision, **PYRAMID, strides=[4, 2], mlp_ratios=[4, 4])
"""Of two stages, each with coarser patches and wider than the one before."""

ENTRIES: tuple[Entry, ...] = (
    vision("vit", class_name="ViTForImageClassification", **VIT),
    vision("deit", class_name="DeiTForImageClassificationWithTeacher", **VIT),
    vision(
        "vit_mae",
        class_name="ViTMAEForPreTraining",
        **VIT,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=128,
    ),
    vision("beit", class_name="BeitForImageClassification", **VIT, use_relative_position_bias=True),
    vision("dinov2", class_name="Dinov2ForImageClassification", **VIT),
    vision("dinov2_with_registers", class_name="Dinov2WithRegistersForImageClassification", **VIT),
    vision("dinov3_vit", class_name="DINOv3ViTModel", **VIT),
    vision("ijepa", class_name="IJepaForImageClassification", **VIT),
    vision(
        "vitdet",
        class_name="VitDetModel",
        **VIT,
        window_size=2,
        window_block_indices=[0],
        use_relative_position_embeddings=True,
        pretrain_image_size=32,
    ),
    vision(
        "hiera",
        class_name="HieraForImageClassification",
        image_size=[32, 32],
        patch_stride=[4, 4],
        patch_size=[7, 7],
        patch_padding=[3, 3],
        embed_dim=32,
        depths=[1, 1],
        num_heads=[2, 4],
        embed_dim_multiplier=2.0,
        num_query_pool=1,
        query_stride=[2, 2],
        masked_unit_size=[4, 4],
        masked_unit_attention=[True, False],
    ),
    vision("swin", class_name="SwinForImageClassification", **WINDOWS),
    vision("swinv2", class_name="Swinv2ForImageClassification", **WINDOWS),
    vision("donut_swin", class_name="DonutSwinModel", **WINDOWS),
    vision(
        "focalnet",
        class_name="FocalNetForImageClassification",
        image_size=32,
        patch_size=2,
        embed_dim=32,
        hidden_sizes=[32, 64],
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    pyramid(
        "segformer",
        class_name="SegformerForSemanticSegmentation",
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
        decoder_hidden_size=64,
    ),
    pyramid(
        "glpn",
        class_name="GLPNForDepthEstimation",
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
        decoder_hidden_size=32,
    ),
    pyramid(
        "pvt",
        class_name="PvtForImageClassification",
        sequence_reduction_ratios=[2, 1],
        image_size=32,
        patch_sizes=[4, 2],
    ),
    pyramid(
        "pvt_v2",
        class_name="PvtV2ForImageClassification",
        image_size=32,
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
    ),
    vision(
        "levit",
        class_name="LevitForImageClassification",
        inputs=partial(picture, 64),
        image_size=64,
        hidden_sizes=[32, 48],
        num_attention_heads=[2, 3],
        depths=[1, 1],
        key_dim=[8, 8],
        mlp_ratio=[2, 2],
        attention_ratio=[2, 2],
        down_ops=[["Subsample", 8, 4, 4, 2, 2]],
    ),
    vision(
        "poolformer",
        class_name="PoolFormerForImageClassification",
        num_encoder_blocks=2,
        depths=[1, 1],
        hidden_sizes=[32, 64],
        patch_sizes=[7, 3],
        strides=[4, 2],
        padding=[2, 1],
        mlp_ratio=4.0,
        note="no attention: pooling",
    ),
    vision(
        "mobilevit",
        class_name="MobileViTForImageClassification",
        inputs=partial(picture, 64),
        image_size=64,
        hidden_sizes=[32, 40, 48],
        neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64],
        num_attention_heads=4,
    ),
    vision(
        "cvt",
        class_name="CvtForImageClassification",
        embed_dim=[16, 32, 64],
        depth=[1, 2, 3],
        num_heads=[1, 2, 4],
    ),
)
