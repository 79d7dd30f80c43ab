"""All entries, in the order of the report; those of a library that is not installed are left out."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from fnmatch import fnmatchcase

from zoo.entry import FAMILIES, Entry

SOURCES: tuple[tuple[str, str | None], ...] = (
    ("text_decoders", "transformers"),
    ("text_encoders", "transformers"),
    ("text_seq2seq", "transformers"),
    ("state_space", "transformers"),
    ("mixtures", "transformers"),
    ("latent_mixtures", "transformers"),
    ("vision_transformers", "transformers"),
    ("convolutional", "transformers"),
    ("detection", "transformers"),
    ("scenes", "transformers"),
    ("audio", "transformers"),
    ("audio_synthesis", "transformers"),
    ("multimodal", "transformers"),
    ("documents", "transformers"),
    ("vision_language", "transformers"),
    ("vision_bridges", "transformers"),
    ("time_series", "transformers"),
    ("diffusion", "diffusers"),
    ("diffusion_transformers", "diffusers"),
    ("plain", None),
    ("plain_signals", None),
)
"""The modules that hold entries, each with the library that its models come from."""


@dataclass(frozen=True)
class Catalogue:
    """The entries that can be built here, and why others cannot."""

    entries: tuple[Entry, ...]
    missing: tuple[str, ...]


def catalogue(only: str = "*", family: str | None = None) -> Catalogue:
    """Collect the entries whose name fits the glob `only`, of one family or of all."""
    entries: list[Entry] = []
    missing: list[str] = []
    for module, library in SOURCES:
        if library is not None and importlib.util.find_spec(library) is None:
            missing.append(f"{module}: {library} is not installed")
            continue
        entries += importlib.import_module(f"zoo.{module}").ENTRIES
    chosen = [e for e in entries if fnmatchcase(e.name, only) and family in (None, e.family)]
    return Catalogue(tuple(sorted(chosen, key=lambda entry: FAMILIES.index(entry.family))), tuple(missing))
