"""Speech and music synthesis, codecs and vocoders of transformers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import BATCH, VOCABULARY, tokens

BARK = {
    "input_vocab_size": VOCABULARY,
    "output_vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "block_size": 64,
}
SPEECHT5 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "num_mel_bins": 16,
    "speech_decoder_prenet_units": 32,
    "speaker_embedding_dim": 16,
    "speech_decoder_postnet_units": 32,
    "speech_decoder_postnet_layers": 2,
    "max_text_positions": 64,
    "max_speech_positions": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}

synthesis = partial(transformer, family="audio")


def sound(length: int = 640) -> dict[str, Tensor]:
    """Two sounds of one channel."""
    return {"input_values": torch.randn(BATCH, 1, length)}


def text_to_speech() -> dict[str, Tensor]:
    """A text, the frames made so far, and a voice."""
    return {
        "input_ids": tokens(),
        "decoder_input_values": torch.randn(BATCH, 6, 16),
        "speaker_embeddings": torch.randn(BATCH, 16),
    }


ENTRIES: tuple[Entry, ...] = (
    synthesis(
        "encodec",
        class_name="EncodecModel",
        inputs=sound,
        transformer_like=False,
        num_filters=8,
        hidden_size=32,
        codebook_size=64,
        codebook_dim=32,
        upsampling_ratios=[8, 4],
        target_bandwidths=[6.0],
        sampling_rate=16000,
    ),
    synthesis(
        "dac",
        class_name="DacModel",
        inputs=sound,
        transformer_like=False,
        encoder_hidden_size=16,
        decoder_hidden_size=64,
        downsampling_ratios=[4, 2],
        n_codebooks=2,
        codebook_size=64,
        codebook_dim=8,
    ),
    synthesis(
        "mimi",
        class_name="MimiModel",
        inputs=sound,
        num_filters=8,
        hidden_size=32,
        codebook_size=64,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        upsampling_ratios=[8, 4],
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        num_quantizers=4,
        upsample_groups=32,
        frame_rate=250.0,
        sampling_rate=16000,
    ),
    synthesis("speecht5", class_name="SpeechT5ForTextToSpeech", inputs=text_to_speech, **SPEECHT5),
    synthesis(
        "speecht5_hifigan",
        class_name="SpeechT5HifiGan",
        transformer_like=False,
        inputs=lambda: {"spectrogram": torch.randn(BATCH, 10, 16)},
        model_in_dim=16,
        upsample_initial_channel=32,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        note="weight norm",
    ),
    synthesis(
        "vits",
        class_name="VitsModel",
        inputs=lambda: {"input_ids": tokens()},
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        flow_size=32,
        spectrogram_bins=9,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=2,
        posterior_encoder_num_wavenet_layers=2,
        duration_predictor_num_flows=2,
        duration_predictor_filter_channels=32,
        depth_separable_num_layers=2,
        note="noise inside",
    ),
    synthesis(
        "univnet",
        class_name="UnivNetModel",
        transformer_like=False,
        inputs=lambda: {
            "input_features": torch.randn(BATCH, 8, 16),
            "noise_sequence": torch.randn(BATCH, 8, 16),
        },
        model_in_channels=16,
        model_hidden_channels=16,
        num_mel_bins=16,
        resblock_kernel_sizes=[3, 3],
        resblock_stride_sizes=[4, 4],
        resblock_dilation_sizes=[[1, 3], [1, 3]],
        kernel_predictor_hidden_channels=16,
    ),
    synthesis(
        "fastspeech2_conformer",
        class_name="FastSpeech2ConformerModel",
        inputs=lambda: {"input_ids": tokens()},
        hidden_size=64,
        vocab_size=VOCABULARY,
        num_mel_bins=16,
        encoder_num_attention_heads=4,
        encoder_layers=1,
        encoder_linear_units=128,
        decoder_layers=1,
        decoder_num_attention_heads=4,
        decoder_linear_units=128,
        speech_decoder_postnet_units=32,
        speech_decoder_postnet_layers=2,
        pitch_predictor_layers=2,
        pitch_predictor_channels=32,
        energy_predictor_channels=32,
        duration_predictor_channels=32,
        encoder_kernel_size=7,
        decoder_kernel_size=7,
    ),
    synthesis(
        "bark_semantic", class_name="BarkSemanticModel", inputs=lambda: {"input_ids": tokens()}, **BARK
    ),
    synthesis(
        "bark_fine",
        class_name="BarkFineModel",
        **BARK,
        n_codes_total=4,
        n_codes_given=1,
        inputs=lambda: {"codebook_idx": 2, "input_ids": torch.randint(0, VOCABULARY, (BATCH, 12, 4))},
    ),
    synthesis(
        "musicgen",
        class_name="MusicgenForCausalLM",
        vocab_size=64,
        hidden_size=64,
        inputs=lambda: {"input_ids": torch.randint(0, 64, (BATCH * 2, 8))},
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=256,
        num_codebooks=2,
        max_position_embeddings=64,
        pad_token_id=64,
        bos_token_id=64,
    ),
)
