"""`W8A16Config`: what to quantize while a model is loaded, or what was done to a model that is stored.

Before loading it holds rules (a `Recipe`). In the `config.json` of a saved model it holds the manifest
instead, which says for every module what was done, so that loading needs no rules.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from w8a16.checkpoint import Manifest, manifest_from_data, manifest_to_data
from w8a16.convert import Recipe, recipe_of
from w8a16.convert.select import Patterns
from w8a16.convert.swap import ON_NONFINITE
from w8a16.errors import CheckpointError, UsageError
from w8a16.integrations.int8_note import METHOD, NOTE


class W8A16Config(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is not typed
    """The `quantization_config` that makes `from_pretrained` quantize to int8 while it loads.

    Args:
        include: names or globs to convert; default: every weight that can be int8.
        exclude: names or globs to spare; wins over `include`.
        kinds: names of the layer kinds to convert (`"linear"`, `"embedding"`, ...); default: all.
        recipe: instead of the three: rules as `w8a16.quantize` takes them, or their `to_dict()`.
        strict: refuse to leave a float weight float, unless it was excluded.
        on_nonfinite: "error", or "keep-float" to leave weights with NaN or Inf as they are.

    Raises:
        UsageError: unknown or contradicting arguments.
        CheckpointError: a stored manifest that cannot be understood.

    Example:
        >>> W8A16Config(exclude="lm_head").to_dict()["recipe"]["exclude"]
        ['lm_head']
    """

    def __init__(
        self,
        include: Patterns = None,
        exclude: Patterns = None,
        kinds: str | Sequence[str] | None = None,
        *,
        recipe: Recipe | dict[str, Any] | None = None,
        strict: bool = False,
        on_nonfinite: str = "error",
        manifest: dict[str, Any] | None = None,
        note: str = NOTE,
        quant_method: str = METHOD,
        **unknown: Any,
    ) -> None:
        if quant_method != METHOD:
            raise UsageError(f"quant_method: expected {METHOD!r}, got {quant_method!r}")
        if unknown:
            raise UsageError(
                f"W8A16Config: unknown {', '.join(sorted(unknown))}; known: include, exclude, kinds, recipe, "
                "strict, on_nonfinite; other quantization methods (load_in_8bit, ...) cannot be combined"
            )
        if on_nonfinite not in ON_NONFINITE:
            raise UsageError(f"on_nonfinite: expected one of {', '.join(ON_NONFINITE)}, got {on_nonfinite!r}")
        rules = Recipe.from_dict(recipe) if isinstance(recipe, dict) else recipe
        self.quant_method = METHOD
        self.recipe = recipe_of(
            include, exclude, kinds, rules
        ).to_dict()  # refuses classes: they have no JSON
        self.strict = bool(strict)
        self.on_nonfinite = on_nonfinite
        self.manifest = copy.deepcopy(manifest)
        if manifest is not None:
            self.stored()  # a broken one is refused now

    @property
    def rules(self) -> Recipe:
        """What to convert."""
        return Recipe.from_dict(self.recipe)

    def stored(self) -> Manifest | None:
        """What was done to a stored model, or None where nothing is known yet.

        Raises:
            CheckpointError: it cannot be understood.
        """
        if self.manifest is None:
            return None
        try:
            return manifest_from_data(self.manifest)
        except CheckpointError as error:
            raise error.at("quantization_config.manifest") from error

    def remember(self, manifest: Manifest) -> None:
        """Hold what was done, in place of the rules."""
        self.manifest = manifest_to_data(manifest)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`: the rules, or what was done."""
        data: dict[str, Any] = {"quant_method": self.quant_method, "note": NOTE}
        if self.manifest is not None:
            return {**data, "manifest": copy.deepcopy(self.manifest)}
        return {
            **data,
            "recipe": copy.deepcopy(self.recipe),
            "strict": self.strict,
            "on_nonfinite": self.on_nonfinite,
        }
