"""A GPT-2 of bytes, trained for a minute: transposed linear layers, and a head tied to the embedding."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from w8a16.study.scenarios.text_model import LanguageModel
from w8a16.study.scenarios.training import Schedule

# size -> width, layers; heads are 32 wide
_SHAPES = {"small": (64, 2), "medium": (96, 3), "large": (128, 4)}


class TextGPT(LanguageModel):
    """transformers' `GPT2LMHeadModel` over bytes."""

    name = "text-gpt"
    title = "GPT-2 of bytes"
    length = 48  # in a minute, more context would not be learnt to be used
    schedules: ClassVar[dict[str, Schedule]] = {
        "small": Schedule(800, 6e-3),
        "medium": Schedule(800, 4e-3),
        "large": Schedule(900, 3e-3),
    }

    def build(self, size: str) -> nn.Module:
        """GPT-2 with a vocabulary of 256 and no dropout."""
        from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

        width, layers = _SHAPES[size]
        config = GPT2Config(
            vocab_size=256,
            n_positions=self.length,
            n_embd=width,
            n_layer=layers,
            n_head=width // 32,
            initializer_range=0.08,  # the usual 0.02 is for much wider models
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
        model: nn.Module = GPT2LMHeadModel(config)
        return model.eval()

    def logits(self, model: nn.Module, blocks: Tensor) -> Tensor:
        """As transformers returns them."""
        result: Tensor = model(input_ids=blocks).logits
        return result

    def batches(self, count: int, seed: int) -> list[Any]:
        """Named arguments, as transformers models take them."""
        return [{"input_ids": blocks} for blocks in super().batches(count, seed)]
