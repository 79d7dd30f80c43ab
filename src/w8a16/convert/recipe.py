"""The recipe: rules that say which weights become int8, and which of them are held finer than usual.

A recipe is about names, not about one model: `plan(model, recipe=recipe)` shows what it comes to, and a
checkpoint records what was done, so that loading needs no recipe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w8a16.convert.select import Pattern, Patterns
from w8a16.errors import UsageError

_FORMAT, _VERSION = "w8a16-recipe", 1


@dataclass(frozen=True)
class Recipe:
    """What to convert and how; `quantize`, `plan` and the command line take it.

    Args:
        include: names, globs or module classes to convert; None: everything that can be.
        exclude: names, globs or module classes to spare; wins over `include`.
        kinds: names of layer kinds to convert; None: all.
        group_size: weights that get a scale for every so many elements of a row: pattern to size.
        outliers: weights of which each row keeps its largest so many elements as floats: pattern to count.

    Raises:
        UsageError: a size or count that is not a positive number.

    Example:
        >>> recipe = Recipe(exclude=["lm_head"], group_size={"layers.0.*": 128}, outliers={"embed": 4})
        >>> Recipe.from_dict(recipe.to_dict()) == recipe
        True
    """

    include: Patterns = None
    exclude: Patterns = None
    kinds: str | Sequence[str] | None = None
    group_size: Mapping[str, int] = field(default_factory=dict)
    outliers: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role, rules in (("group_size", self.group_size), ("outliers", self.outliers)):
            for pattern, number in rules.items():
                if type(number) is not int or number < 1:
                    raise UsageError(f"{role}: expected a positive number for {pattern!r}, got {number!r}")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, for JSON.

        Raises:
            UsageError: a pattern is a class, which has no name that a file could hold.
        """
        return {
            "format": _FORMAT,
            "format_version": _VERSION,
            "include": _names(self.include, "include"),
            "exclude": _names(self.exclude, "exclude"),
            "kinds": None if self.kinds is None else _listed(self.kinds),
            "group_size": dict(self.group_size),
            "outliers": dict(self.outliers),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Recipe:
        """The way back.

        Raises:
            UsageError: not a recipe, or written by a newer version.
        """
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise UsageError(f'expected a recipe ("format": "{_FORMAT}"), got {_excerpt(data)}')
        if data.get("format_version") != _VERSION:
            raise UsageError(
                f"expected a recipe of format {_VERSION}, got {data.get('format_version')!r}: "
                "written by a newer w8a16?"
            )
        values = {key: data[key] for key in data.keys() - {"format", "format_version"}}
        fields = {
            **dict.fromkeys(("include", "exclude", "kinds"), list),
            **dict.fromkeys(("group_size", "outliers"), dict),
        }
        unknown = sorted(values.keys() - fields.keys())
        if unknown:
            raise UsageError(f"unknown in a recipe: {', '.join(unknown)}; known: {', '.join(fields)}")
        for key, value in values.items():
            if value is not None and not isinstance(value, fields[key]):
                raise UsageError(f"{key}: expected a JSON {_JSON[fields[key]]} in a recipe, got {value!r}")
        return cls(**{key: value for key, value in values.items() if value is not None})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe as a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe that `save` wrote, or that was written by hand.

        Raises:
            UsageError: there is no such file, or it is not a recipe.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"recipe {os.fspath(path)!r}: {error}") from error
        try:
            return cls.from_dict(data)
        except UsageError as error:
            raise UsageError(f"recipe {os.fspath(path)!r}: {error}") from error


def recipe_of(
    include: Patterns, exclude: Patterns, kinds: str | Sequence[str] | None, recipe: Recipe | None
) -> Recipe:
    """The recipe that was given, or one of the separate rules.

    Raises:
        UsageError: both were given, or something else than a recipe.
    """
    if recipe is None:
        return Recipe(include, exclude, kinds)
    if not isinstance(recipe, Recipe):
        raise UsageError(f"recipe: expected a w8a16.Recipe, got {type(recipe).__name__}")
    if not (include is None and exclude is None and kinds is None):
        raise UsageError("expected a recipe, or include, exclude and kinds; got both: put them into it")
    return recipe


EVERYTHING = Recipe()
"""The usual rules: all weights that can be int8, with one scale for each row."""

_JSON = {list: "array", dict: "object"}


def _names(patterns: Patterns, role: str) -> list[str] | None:
    if patterns is None:
        return None
    several: Sequence[Pattern] = [patterns] if isinstance(patterns, (str, type)) else list(patterns)
    classes = [pattern.__name__ for pattern in several if not isinstance(pattern, str)]
    if classes:
        raise UsageError(f"{role}: a recipe with the class {classes[0]} cannot be stored; name its modules")
    return [pattern for pattern in several if isinstance(pattern, str)]


def _listed(kinds: str | Sequence[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _excerpt(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:57]}..."
