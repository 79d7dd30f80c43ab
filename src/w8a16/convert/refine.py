"""Which weights a recipe wants held finer, and which of them cannot be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from w8a16.convert.candidate import Candidate
from w8a16.convert.inventory import Entry
from w8a16.convert.recipe import Recipe
from w8a16.convert.select import Selection
from w8a16.convert.source import effective_weight
from w8a16.convert.verdict import Verdict
from w8a16.errors import PatternError
from w8a16.layers import Layout


@dataclass(frozen=True)
class Refined:
    """The candidates with the layouts that the recipe wants for them."""

    candidates: dict[Hashable, list[Candidate]]
    refused: dict[Hashable, str]
    """Entries that cannot be held as the recipe wants, and why."""

    def refuse(self, entries: list[Entry], verdicts: Mapping[Hashable, Verdict]) -> None:
        """Raise a `PatternError` that names each weight that becomes int8, but not as the recipe wants."""
        problems = [
            f"  {entry.places[0].full_name}: {self.refused[entry.key]}"
            for entry in entries
            if entry.key in self.refused and entry.key in verdicts and verdicts[entry.key].int8
        ]
        if problems:
            raise PatternError("the recipe cannot be followed:\n" + "\n".join(problems))


def refine(
    entries: list[Entry], candidates: dict[Hashable, list[Candidate]], selection: Selection, recipe: Recipe
) -> Refined:
    """Give every candidate whose weight the recipe names the refined layout."""
    refined: dict[int, Candidate] = {}
    refused: dict[Hashable, str] = {}
    for entry in entries:
        wishes = _wishes(entry, selection, recipe)
        if not wishes:
            continue
        if len(wishes) > 1:
            refused[entry.key] = f"several rules: {', '.join(wishes)}"
            continue
        role, number = next(iter(wishes.values()))
        for candidate in candidates.get(entry.key, []):
            layout = candidate.layout
            layout = layout.in_groups(number) if role == "group_size" else layout.with_outliers(number)
            problem = _problem(candidate, layout)
            if problem:
                refused[entry.key] = f"{role}: {problem}"
            else:
                refined[id(candidate)] = replace(candidate, layout=layout)
    again = {key: [refined.get(id(c), c) for c in group] for key, group in candidates.items()}
    return Refined(again, refused)


def _wishes(entry: Entry, selection: Selection, recipe: Recipe) -> dict[str, tuple[str, int]]:
    """The different refinements that rules ask for, by their words."""
    return {
        f"{role} {number}": (role, number)
        for role, rules in (("group_size", recipe.group_size), ("outliers", recipe.outliers))
        for pattern, number in rules.items()
        if selection.matches(pattern, entry)
    }


def _problem(candidate: Candidate, layout: Layout) -> str | None:
    if not candidate.kind.refinable:
        return f"a weight of the kind {candidate.kind.name} has one scale for each row"
    return layout.why_not(tuple(effective_weight(candidate.module, candidate.name).shape))
