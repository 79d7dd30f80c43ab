"""Text models of transformers with an encoder and a decoder."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import BATCH, VOCABULARY, tokens, two_texts

T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "forced_eos_token_id": None,
}

seq2seq = partial(transformer, family="text-seq2seq", inputs=two_texts, generate=True)


def sixteen_tokens() -> dict[str, Tensor]:
    """Tokens whose number is a multiple of the attention window."""
    return {
        "input_ids": tokens(16),
        "attention_mask": torch.ones(BATCH, 16, dtype=torch.int64),
        "decoder_input_ids": tokens(5),
    }


ENTRIES: tuple[Entry, ...] = (
    seq2seq("t5", class_name="T5ForConditionalGeneration", **T5, note="reads wo.weight.dtype"),
    seq2seq(
        "t5_v1_1",
        class_name="T5ForConditionalGeneration",
        **T5,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        published=False,
    ),
    seq2seq("mt5", class_name="MT5ForConditionalGeneration", **T5),
    seq2seq("umt5", class_name="UMT5ForConditionalGeneration", **T5),
    seq2seq(
        "longt5",
        class_name="LongT5ForConditionalGeneration",
        **T5,
        encoder_attention_type="transient-global",
        local_radius=5,
        global_block_size=4,
    ),
    seq2seq("bart", class_name="BartForConditionalGeneration", **BART),
    seq2seq("mbart", class_name="MBartForConditionalGeneration", **BART),
    seq2seq("pegasus", class_name="PegasusForConditionalGeneration", **BART),
    seq2seq("m2m_100", class_name="M2M100ForConditionalGeneration", **BART),
    seq2seq("blenderbot", class_name="BlenderbotForConditionalGeneration", **BART),
    seq2seq("marian", class_name="MarianMTModel", **BART, decoder_vocab_size=VOCABULARY),
    seq2seq(
        "prophetnet",
        class_name="ProphetNetForConditionalGeneration",
        vocab_size=VOCABULARY,
        hidden_size=64,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        max_position_embeddings=64,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    ),
    seq2seq(
        "led",
        class_name="LEDForConditionalGeneration",
        inputs=sixteen_tokens,
        **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
        attention_window=8,
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64,
    ),
    seq2seq(
        "pegasus_x",
        class_name="PegasusXForConditionalGeneration",
        inputs=sixteen_tokens,
        **BART,
        num_global_tokens=4,
        block_size=8,
    ),
)
