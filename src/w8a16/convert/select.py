"""Include and exclude patterns: exact names, globs and module types."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn

from w8a16.convert.adapters import adapter_part
from w8a16.convert.inventory import Entry, Place
from w8a16.errors import PatternError
from w8a16.layers import KINDS, QuantizedModule

Pattern: TypeAlias = str | type[nn.Module]
"""A name or glob (`"lm_head"`, `"encoder.layer.*.output"`), or a module class."""
Patterns: TypeAlias = Pattern | Sequence[Pattern] | None


class Selection:
    """Decides for a place whether the user's patterns include and exclude it.

    A name or glob matches a parameter by its own full name, by its module's path, or by the path of
    any module above it; a class matches the module or any module above it, subclasses included.
    """

    def __init__(
        self,
        model: nn.Module,
        include: Patterns,
        exclude: Patterns,
        kinds: str | Sequence[str] | None = None,
        refined: Iterable[str] = (),
    ) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self.include = None if include is None else _as_patterns(include, "include")
        self.exclude = _as_patterns(exclude, "exclude") if exclude is not None else ()
        self.kinds = None if kinds is None else _as_kinds(kinds)
        self._refuse_contradictions()
        self._refuse_unmatched(tuple(refined))

    def wants(self, kind: str) -> bool:
        """Whether the caller asked for this kind of layer (for all, where nothing was asked for)."""
        return self.kinds is None or kind in self.kinds

    def included(self, entry: Entry) -> bool:
        """Whether any place of the entry is included (everything is, where nothing was asked for)."""
        return self.include is None or any(self._any(self.include, place) for place in entry.places)

    def excluded(self, entry: Entry) -> bool:
        """Whether any place of the entry is excluded; a tied weight is spared everywhere."""
        return any(self._any(self.exclude, place) for place in entry.places)

    def adapter_part(self, place: Place) -> str | None:
        """The part of an adapter that a parameter belongs to, or None."""
        return adapter_part(place.full_name, self._modules)

    def matches(self, pattern: Pattern, entry: Entry) -> bool:
        """Whether one pattern matches any place of the entry."""
        return any(self._matches(pattern, place) for place in entry.places)

    def matches_quantized(self, pattern: Pattern) -> bool:
        """Whether one pattern matches a module that is int8 already."""
        return any(
            self._matches(pattern, Place(module, path, name, module))
            for path, module in self._modules.items()
            if isinstance(module, QuantizedModule)
            for name in module.layouts
        )

    def _any(self, patterns: Iterable[Pattern], place: Place) -> bool:
        return any(self._matches(pattern, place) for pattern in patterns)

    def _matches(self, pattern: Pattern, place: Place) -> bool:
        paths = _path_and_parents(place.path)
        if isinstance(pattern, str):
            return any(fnmatchcase(name, pattern) for name in (place.full_name, *paths))
        return any(isinstance(self._modules[path], pattern) for path in ("", *paths))

    def _refuse_contradictions(self) -> None:
        both = [p for p in self.include or () if p in self.exclude]
        if both:
            raise PatternError(f"both included and excluded: {', '.join(map(show_pattern, both))}")

    def _refuse_unmatched(self, refined: tuple[str, ...]) -> None:
        names = [name for name in self._modules if name]
        for path, module in self._modules.items():
            own = [name for name, _ in module._parameters.items()]  # a ScriptModule has no plain dict
            own += list(module.layouts) if isinstance(module, QuantizedModule) else []
            names += [f"{path}.{name}" if path else name for name in own]
        given = (("include", self.include or ()), ("exclude", self.exclude), ("recipe", refined))
        for role, patterns in given:
            for pattern in patterns:
                if isinstance(pattern, str):
                    if not any(fnmatchcase(name, pattern) for name in names):
                        raise PatternError(_nothing_named(role, pattern, names))
                elif not any(isinstance(module, pattern) for module in self._modules.values()):
                    types = sorted({type(module).__name__ for module in self._modules.values()})
                    raise PatternError(
                        f"{role}: no module is a {show_pattern(pattern)}; the model has {', '.join(types)}"
                    )


def show_pattern(pattern: Pattern) -> str:
    """The pattern as a user wrote it."""
    return repr(pattern) if isinstance(pattern, str) else pattern.__name__


def _as_patterns(patterns: object, role: str) -> tuple[Pattern, ...]:
    several = isinstance(patterns, Iterable) and not isinstance(patterns, (str, type))
    checked: list[Pattern] = []
    for pattern in patterns if several else [patterns]:  # type: ignore[attr-defined]
        if not (isinstance(pattern, str) or (isinstance(pattern, type) and issubclass(pattern, nn.Module))):
            raise PatternError(f"{role}: expected a name, a glob or a module class, got {pattern!r}")
        checked.append(pattern)
    return tuple(checked)


def _as_kinds(kinds: str | Sequence[str]) -> frozenset[str]:
    asked = [kinds] if isinstance(kinds, str) else list(kinds)
    known = [kind.name for kind in KINDS]
    unknown = [kind for kind in asked if kind not in known]
    if unknown:
        raise PatternError(f"kinds: expected some of {', '.join(known)}; got {', '.join(map(repr, unknown))}")
    return frozenset(asked)


def _path_and_parents(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _nothing_named(role: str, pattern: str, names: list[str]) -> str:
    close = difflib.get_close_matches(pattern, names, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(names[:8])}, ..."
    return f"{role}: nothing in the model is named {pattern!r}; {hint}"
