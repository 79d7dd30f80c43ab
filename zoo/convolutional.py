"""Convolutional image classifiers of transformers."""

from __future__ import annotations

from functools import partial

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import picture

STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]}

convolutional = partial(transformer, family="vision", inputs=picture, transformer_like=False)

ENTRIES: tuple[Entry, ...] = (
    convolutional("resnet", class_name="ResNetForImageClassification", **STAGES),
    convolutional("regnet", class_name="RegNetForImageClassification", **STAGES, groups_width=8),
    convolutional(
        "convnext",
        class_name="ConvNextForImageClassification",
        num_stages=2,
        hidden_sizes=[32, 64],
        depths=[1, 1],
    ),
    convolutional(
        "convnextv2",
        class_name="ConvNextV2ForImageClassification",
        num_stages=2,
        hidden_sizes=[32, 64],
        depths=[1, 1],
    ),
    convolutional(
        "bit",
        class_name="BitForImageClassification",
        embedding_size=16,
        hidden_sizes=[32, 64],
        depths=[1, 1],
        num_groups=4,
        note="standardizes its convolution weights at each call",
    ),
    convolutional("mobilenet_v1", class_name="MobileNetV1ForImageClassification", depth_multiplier=0.25),
    convolutional(
        "mobilenet_v2",
        class_name="MobileNetV2ForImageClassification",
        depth_multiplier=0.25,
        note="pads in its own way",
    ),
    convolutional(
        "efficientnet",
        class_name="EfficientNetForImageClassification",
        width_coefficient=0.5,
        depth_coefficient=0.3,
        hidden_dim=640,
    ),
    convolutional(
        "swiftformer",
        class_name="SwiftFormerForImageClassification",
        inputs=partial(picture, 64),
        depths=[1, 1, 1, 1],
        embed_dims=[16, 32, 48, 64],
    ),
    convolutional(
        "hgnet_v2",
        class_name="HGNetV2ForImageClassification",
        embedding_size=16,
        stem_channels=[3, 16, 16],
        hidden_sizes=[32, 48, 64, 96],
        stage_in_channels=[16, 32, 48, 64],
        stage_mid_channels=[16, 16, 24, 32],
        stage_out_channels=[32, 48, 64, 96],
        stage_num_blocks=[1, 1, 1, 1],
        depths=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[2, 2, 2, 2],
    ),
    convolutional(
        "superpoint",
        class_name="SuperPointForKeypointDetection",
        encoder_hidden_sizes=[16, 16, 32, 32],
        decoder_hidden_size=32,
        descriptor_decoder_dim=32,
    ),
)
