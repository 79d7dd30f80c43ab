"""Speech recognition and sound encoders of transformers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import BATCH, VOCABULARY, tokens, waveform

SPEECH = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 32,
    "conv_dim": [32, 32],
    "conv_stride": [8, 8],
    "conv_kernel": [16, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WHISPER = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "max_source_positions": 20,
    "max_target_positions": 20,
    "decoder_start_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def padded_waveform() -> dict[str, Tensor]:
    """Two sounds, the first one shorter."""
    mask = torch.ones(BATCH, 1600, dtype=torch.int64)
    mask[0, -400:] = 0
    return {**waveform(), "attention_mask": mask}


def spectrogram() -> dict[str, Tensor]:
    """Forty frames of sixteen bands, and the tokens said so far."""
    return {"input_features": torch.randn(BATCH, 16, 40), "decoder_input_ids": tokens(5)}


def frames() -> dict[str, Tensor]:
    """The same with the bands last."""
    return {"input_features": torch.randn(BATCH, 40, 16), "decoder_input_ids": tokens(5)}


audio = partial(transformer, family="audio", inputs=padded_waveform)

ENTRIES: tuple[Entry, ...] = (
    audio(
        "whisper",
        class_name="WhisperForConditionalGeneration",
        inputs=spectrogram,
        generate=True,
        **WHISPER,
        num_mel_bins=16,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    audio(
        "speech_to_text",
        class_name="Speech2TextForConditionalGeneration",
        inputs=frames,
        generate=True,
        **{**WHISPER, "max_source_positions": 64},
        input_feat_per_channel=16,
        input_channels=1,
        num_conv_layers=2,
        conv_kernel_sizes=[5, 5],
        conv_channels=32,
    ),
    audio(
        "moonshine",
        class_name="MoonshineForConditionalGeneration",
        vocab_size=VOCABULARY,
        hidden_size=64,
        inputs=lambda: {**waveform(3200), "decoder_input_ids": tokens(5)},
        generate=True,
        intermediate_size=256,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        encoder_num_key_value_heads=4,
        decoder_num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
    ),
    audio("wav2vec2", class_name="Wav2Vec2ForCTC", **SPEECH),
    audio(
        "wav2vec2_stable",
        class_name="Wav2Vec2ForCTC",
        **SPEECH,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
        conv_bias=True,
        published=False,
        note="the large layout",
    ),
    audio(
        "wav2vec2_conformer",
        class_name="Wav2Vec2ConformerForCTC",
        published={"vocab_size": 32},
        **SPEECH,
        conv_depthwise_kernel_size=7,
        position_embeddings_type="rotary",
    ),
    audio("hubert", class_name="HubertForCTC", **SPEECH),
    audio(
        "wavlm",
        class_name="WavLMForCTC",
        **SPEECH,
        num_buckets=16,
        max_bucket_distance=64,
        note="hands the weights of its projections to a function",
    ),
    audio(
        "data2vec_audio",
        class_name="Data2VecAudioForCTC",
        **SPEECH,
        num_conv_pos_embedding_layers=2,
        conv_pos_kernel_size=5,
    ),
    audio("unispeech", class_name="UniSpeechForCTC", **SPEECH),
    audio("unispeech_sat", class_name="UniSpeechSatForCTC", **SPEECH),
    audio("sew", class_name="SEWForCTC", **SPEECH, squeeze_factor=2),
    audio(
        "ast",
        class_name="ASTForAudioClassification",
        hidden_size=64,
        num_hidden_layers=2,
        inputs=lambda: {"input_values": torch.randn(BATCH, 40, 16)},
        num_attention_heads=4,
        intermediate_size=256,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
        max_length=40,
        num_mel_bins=16,
    ),
    audio(
        "clap",
        class_name="ClapModel",
        inputs=lambda: {
            "input_ids": tokens(),
            "input_features": torch.randn(BATCH, 1, 64, 16),
            "is_longer": torch.zeros(BATCH, 1, dtype=torch.bool),
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 64,
            "projection_dim": 32,
            "pad_token_id": 0,
        },
        audio_config={
            "spec_size": 64,
            "num_mel_bins": 16,
            "window_size": 4,
            "patch_size": 4,
            "patch_stride": [4, 4],
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "hidden_size": 32,
            "projection_dim": 32,
            "num_classes": 8,
        },
        projection_dim=32,
    ),
    audio(
        "wav2vec2_bert",
        class_name="Wav2Vec2BertForCTC",
        published={"vocab_size": 32},
        inputs=lambda: {"input_features": torch.randn(BATCH, 20, 32)},
        **{k: v for k, v in SPEECH.items() if not k.startswith(("conv", "num_feat", "num_conv"))},
        feature_projection_input_dim=32,
        conv_depthwise_kernel_size=7,
        left_max_position_embeddings=8,
        right_max_position_embeddings=8,
    ),
    audio(
        "seamless_m4t",
        class_name="SeamlessM4TForTextToText",
        inputs=lambda: {"input_ids": tokens(), "decoder_input_ids": tokens(5)},
        vocab_size=VOCABULARY,
        t2u_vocab_size=VOCABULARY,
        hidden_size=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
)
