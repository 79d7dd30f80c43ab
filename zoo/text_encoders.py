"""Text encoders of transformers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import BATCH, VOCABULARY, text, tokens

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}

encoder = partial(transformer, family="text-encoder", inputs=text)


def two_segments() -> dict[str, Tensor]:
    """Tokens of a pair of sentences."""
    second = torch.zeros(BATCH, 12, dtype=torch.int64)
    second[:, 6:] = 1
    return {**text(), "token_type_ids": second}


def characters() -> dict[str, Tensor]:
    """Code points, enough of them to be down-sampled four times."""
    return {"input_ids": torch.randint(32, 0x4000, (BATCH, 16))}


def sixteen_tokens() -> dict[str, Tensor]:
    """Tokens whose number is a multiple of the attention window."""
    return {"input_ids": tokens(16)}


def questions() -> dict[str, Tensor]:
    """Tokens with one question token (id 3) in each row, after which a span is looked for."""
    ids = tokens().clamp(min=4)
    ids[:, 5] = 3
    return {"input_ids": ids}


ENTRIES: tuple[Entry, ...] = (
    encoder("bert", class_name="BertForMaskedLM", inputs=two_segments, **SIZES),
    encoder("roberta", class_name="RobertaForMaskedLM", **SIZES),
    encoder("xlm_roberta", class_name="XLMRobertaForSequenceClassification", **SIZES),
    encoder("ernie", class_name="ErnieForTokenClassification", **SIZES),
    encoder(
        "distilbert",
        class_name="DistilBertForMaskedLM",
        vocab_size=VOCABULARY,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=256,
        max_position_embeddings=64,
    ),
    encoder("albert", class_name="AlbertForMaskedLM", **SIZES, embedding_size=32, note="one shared layer"),
    encoder("electra", class_name="ElectraForPreTraining", **SIZES, embedding_size=32),
    encoder(
        "deberta_v2",
        class_name="DebertaV2ForMaskedLM",
        **SIZES,
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
    ),
    encoder(
        "deberta",
        class_name="DebertaForMaskedLM",
        **SIZES,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
    ),
    encoder("mpnet", class_name="MPNetForMaskedLM", **SIZES),
    encoder(
        "modernbert",
        class_name="ModernBertForMaskedLM",
        **SIZES,
        cls_token_id=1,
        sep_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
    ),
    encoder(
        "longformer",
        class_name="LongformerForMaskedLM",
        inputs=sixteen_tokens,
        **SIZES,
        attention_window=[8, 8],
    ),
    encoder("big_bird", class_name="BigBirdForMaskedLM", **SIZES, attention_type="original_full"),
    encoder(
        "xlnet",
        class_name="XLNetLMHeadModel",
        vocab_size=VOCABULARY,
        d_model=64,
        n_layer=2,
        n_head=4,
        d_inner=256,
    ),
    encoder(
        "funnel",
        class_name="FunnelForMaskedLM",
        vocab_size=VOCABULARY,
        block_sizes=[1, 1],
        num_decoder_layers=1,
        d_model=64,
        n_head=4,
        d_head=16,
        d_inner=256,
    ),
    encoder(
        "canine",
        class_name="CanineForTokenClassification",
        inputs=characters,
        **{**SIZES, "max_position_embeddings": 64},
        num_hash_functions=4,
        num_hash_buckets=64,
        local_transformer_stride=16,
        bos_token_id=1,
        eos_token_id=2,
    ),
    encoder("fnet", class_name="FNetForMaskedLM", inputs=sixteen_tokens, **SIZES, note="no attention"),
    encoder(
        "splinter", class_name="SplinterForQuestionAnswering", inputs=questions, **SIZES, question_token_id=3
    ),
    encoder(
        "squeezebert",
        class_name="SqueezeBertForMaskedLM",
        **SIZES,
        embedding_size=64,
        note="linear layers written as convolutions of length one",
    ),
    encoder(
        "nystromformer",
        class_name="NystromformerForMaskedLM",
        inputs=sixteen_tokens,
        **SIZES,
        segment_means_seq_len=16,
        num_landmarks=4,
        conv_kernel_size=5,
    ),
    encoder(
        "mobilebert",
        class_name="MobileBertForMaskedLM",
        **{**SIZES, "intermediate_size": 64},
        intra_bottleneck_size=32,
        embedding_size=32,
    ),
    encoder(
        "convbert",
        class_name="ConvBertForMaskedLM",
        **SIZES,
        embedding_size=64,
        head_ratio=2,
        conv_kernel_size=5,
    ),
    encoder(
        "esm",
        published={"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
        class_name="EsmForMaskedLM",
        **SIZES,
        mask_token_id=4,
        position_embedding_type="rotary",
    ),
    encoder("roformer", class_name="RoFormerForMaskedLM", **SIZES, embedding_size=64),
    encoder(
        "flaubert",
        class_name="FlaubertWithLMHeadModel",
        n_words=VOCABULARY,
        emb_dim=64,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=64,
        pad_index=0,
    ),
)
