"""Models that remember their ties by the names of parameters, as those of transformers do.

Such a model finds the parameters to tie by searching their names for patterns. An int8 weight is no
parameter, so a pattern may find nothing any more, and `tie_weights()` would fail. What the patterns
meant before the conversion is remembered in the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_METHOD = "get_expanded_tied_weights_keys"


class RememberedTies:
    """Answers a model's question for its ties with what they were when the names were still there."""

    def __init__(self, model: nn.Module, ties: dict[str, str]) -> None:
        self.model = model
        self.ties = ties

    def __call__(self, all_submodels: bool = False) -> dict[str, str]:
        """The names to tie, target to source; with `all_submodels`, those of the models inside too."""
        if all_submodels:
            # The class's own method asks every model inside, this one too, for its own ties.
            found: dict[str, str] = getattr(type(self.model), _METHOD)(self.model, all_submodels=True)
            return found
        tied = getattr(getattr(self.model, "config", None), "tie_word_embeddings", True)
        return dict(self.ties) if tied else {}


@contextmanager
def remembering_ties(model: nn.Module) -> Iterator[None]:
    """Convert inside the block; afterwards every model inside still knows its ties."""
    before = [(module, _ask(module)) for module in model.modules() if _has_ties(module)]
    yield
    for module, ties in before:
        if ties and _ask(module) is None:
            setattr(module, _METHOD, RememberedTies(module, ties))


def forget_ties(model: nn.Module) -> None:
    """Let the models inside search the names of their parameters again."""
    for module in model.modules():
        if isinstance(module.__dict__.get(_METHOD), RememberedTies):
            delattr(module, _METHOD)


def _has_ties(module: nn.Module) -> bool:
    return bool(getattr(module, "_tied_weights_keys", None)) and callable(getattr(module, _METHOD, None))


def _ask(module: Any) -> dict[str, str] | None:
    """The ties by name, or None where the model cannot tell."""
    try:
        ties = getattr(module, _METHOD)(all_submodels=False)
    except Exception:  # foreign code, and only its failure matters
        return None
    return dict(ties)
