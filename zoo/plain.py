"""Models written with nothing but torch.nn, as in any training script: text and interactions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.entry import Entry
from zoo.tensors import BATCH, VOCABULARY, tokens

WIDTH = 64


class Translator(nn.Module):
    """The encoder and decoder of `nn.Transformer` between embeddings and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.transformer = nn.Transformer(WIDTH, 4, 2, 2, 4 * WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits for each token of `target`."""
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.transformer(self.embedding(source), self.embedding(target), tgt_mask=causal)
        return self.head(hidden)


class Tagger(nn.Module):
    """`nn.TransformerEncoder` over padded text; its fast path reads the weights of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, 9)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        """Logits for each token; those of padded tokens are zero."""
        hidden = self.encoder(self.embedding(ids), src_key_padding_mask=padding)
        return self.head(hidden) * ~padding[..., None]


class PackedClassifier(nn.Module):
    """A bidirectional LSTM of two layers over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.lstm = nn.LSTM(32, WIDTH, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * WIDTH, 5)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits from the last states, and all hidden states."""
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        hidden, (last, _) = self.lstm(packed)
        return self.head(torch.cat([last[-2], last[-1]], 1)), pad_packed_sequence(hidden, batch_first=True)[0]


class RecurrentTranslator(nn.Module):
    """A projected LSTM encodes, a GRU decodes and attends to what was encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.encoder = nn.LSTM(32, WIDTH, proj_size=48)
        self.decoder = nn.GRU(32, 48)
        self.head = nn.Linear(96, VOCABULARY, bias=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits for each token of `target`."""
        memory, (state, _) = self.encoder(self.embedding(source.T))
        hidden, _ = self.decoder(self.embedding(target.T), state)
        weights = torch.einsum("tbh,sbh->bts", hidden, memory).softmax(-1)
        context = torch.einsum("bts,sbh->tbh", weights, memory)
        return self.head(torch.cat([hidden, context], -1)).transpose(0, 1)


class CellLoop(nn.Module):
    """Cells of a GRU, an LSTM and an Elman network, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRUCell(32, WIDTH)
        self.lstm = nn.LSTMCell(WIDTH, WIDTH)
        self.elman = nn.RNNCell(WIDTH, 32, nonlinearity="relu")

    def forward(self, steps: Tensor) -> Tensor:
        """The last state after all steps."""
        state, low = steps.new_zeros(len(steps), WIDTH), steps.new_zeros(len(steps), 32)
        long = (state, state)
        for step in steps.unbind(1):
            state = self.gru(step, state)
            long = self.lstm(state, long)
            low = self.elman(long[0], low)
        return low


class Matcher(nn.Module):
    """Two texts held against each other with `nn.Bilinear`."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(32, WIDTH), nn.Tanh())
        self.match = nn.Bilinear(WIDTH, WIDTH, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Logits of the relation."""
        return self.match(self.tower(left), self.tower(right))


class Recommender(nn.Module):
    """Bags of items and of features, averaged, summed and weighted, then a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.EmbeddingBag(200, 32, mode="mean", padding_idx=0)
        self.features = nn.EmbeddingBag(100, 32, mode="sum", include_last_offset=True)
        self.item = nn.Embedding(200, 32, max_norm=1.0)
        self.net = nn.Sequential(nn.Linear(96, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, seen: Tensor, flat: Tensor, offsets: Tensor, weights: Tensor, item: Tensor) -> Tensor:
        """How much each user would like `item`."""
        bags = self.features(flat, offsets, per_sample_weights=weights)
        return self.net(torch.cat([self.seen(seen), bags, self.item(item)], 1))


class CrossAttention(nn.Module):
    """`nn.MultiheadAttention` with keys and values of other widths, with and without masks."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(WIDTH, 4, kdim=48, vdim=32, batch_first=True)
        self.own = nn.MultiheadAttention(WIDTH, 4, add_bias_kv=True, add_zero_attn=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What was attended to, and how much to each key."""
        hidden, weights = self.cross(query, key, value)
        hidden = hidden.transpose(0, 1)
        return self.own(hidden, hidden, hidden, need_weights=False)[0], weights


class TiedLanguageModel(nn.Module):
    """A recurrent language model whose head is the embedding matrix, used as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Log-probabilities of the next token."""
        return F.log_softmax(self.head(self.rnn(self.embedding(ids))[0]), -1)


def _padded() -> dict[str, Tensor]:
    padding = torch.zeros(BATCH, 12, dtype=torch.bool)
    padding[0, -3:] = True
    return {"ids": tokens(), "padding": padding}


def _basket() -> dict[str, Tensor]:
    seen = torch.randint(1, 200, (BATCH, 6))
    seen[0, -2:] = 0
    return {
        "seen": seen,
        "flat": torch.randint(0, 100, (7,)),
        "offsets": torch.tensor([0, 3, 7]),
        "weights": torch.rand(7),
        "item": torch.tensor([5, 9]),
    }


ENTRIES: tuple[Entry, ...] = (
    Entry("nn_transformer", "plain", Translator, lambda: {"source": tokens(), "target": tokens(5)}),
    Entry("nn_transformer_encoder", "plain", Tagger, _padded, note="has a fast path in evaluation mode"),
    Entry(
        "multihead_cross",
        "plain",
        CrossAttention,
        lambda: (torch.randn(BATCH, 5, WIDTH), torch.randn(BATCH, 7, 48), torch.randn(BATCH, 7, 32)),
    ),
    Entry(
        "lstm_packed",
        "plain",
        PackedClassifier,
        lambda: (tokens(), torch.tensor([7, 12])),
        transformer_like=False,
    ),
    Entry(
        "lstm_gru_seq2seq",
        "plain",
        RecurrentTranslator,
        lambda: {"source": tokens(), "target": tokens(5)},
        transformer_like=False,
    ),
    Entry("gru_tied", "plain", TiedLanguageModel, lambda: (tokens(),), transformer_like=False),
    Entry("cell_loop", "plain", CellLoop, lambda: (torch.randn(BATCH, 6, 32),), transformer_like=False),
    Entry(
        "bilinear",
        "plain",
        Matcher,
        lambda: (torch.randn(BATCH, 32), torch.randn(BATCH, 32)),
        transformer_like=False,
    ),
    Entry("embedding_bag", "plain", Recommender, _basket, transformer_like=False),
)
