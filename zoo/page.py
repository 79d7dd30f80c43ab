"""docs/models.md: the report as a page."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from w8a16.convert.verdict import REASONS
from zoo.entry import FAMILIES
from zoo.result import CHECKS, NOT_APPLICABLE, OK, Result
from zoo.run import show_markdown, summary

_INTRODUCTION = """# Models

Every architecture below is built in a tiny size with random weights, quantized, and held to the same
checks. The yardstick is its *twin*: the float model with exactly the dequantized weights, so nothing but
the rounding of float32 arithmetic may differ. `make zoo` runs all of them and writes this page;
`python -m zoo --only 'llama*'` runs some.

* **runs**: forward works and is finite. **equals**: every output is within 1e-5 of the twin's, relative to
  its norm (an architecture may name another bound, with the reason in its entry).
* **ties**: tied weights share their int8 tensors, in memory and after a round trip. **round_trip**: `save`
  and `load` into a fresh model, and a strict `load_state_dict`, give the same bits. **copies**: so do
  deepcopy and pickle. **generate**: greedy generation gives the twin's tokens. **bfloat16**: as close to the
  exact result as the twin in bfloat16 is. **gradients**: the gradient that reaches the inputs is the twin's.
* **coverage**: the share of the bytes of all float parameters with two or more dimensions that became int8,
  for the tiny size and (*published*) for the library's default size, planned on the meta device.
* **error**: largest distance of an output from the twin's. **drift**: the distance from the float model,
  which for random weights says little about trained ones.

– means that the check does not apply (no ties, no `generate`, no float input, not runnable in bfloat16).
"""


def read_results(path: Path) -> list[Result]:
    """Results that `--json` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Result(**{**row, "remaining": tuple(map(tuple, row["remaining"]))}) for row in rows]


def write_page(results: Sequence[Result], peers: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Write the page: totals, other libraries, a table for each family, and what stays float."""
    without_time = summary(results).rpartition("; ")[0]  # it says more about the machine than about the zoo
    parts = [_INTRODUCTION, f"**{without_time}.**\n"]
    if peers:
        parts.append(_peers({"w8a16": results, **peers}))
    for family in FAMILIES:
        members = [result for result in results if result.family == family]
        if members:
            table = show_markdown(members).rpartition("\n\n")[0]
            parts.append(f"## {family}\n\n{table}\n")
    parts.append(_remaining(results))
    path.write_text("\n".join(parts), encoding="utf-8")


def _peers(libraries: Mapping[str, Sequence[Result]]) -> str:
    """How many of the architectures, of those a check applies to, each library gets right."""
    lines = ["## Other libraries", ""]
    lines += ["The same checks on the same architectures (`python -m zoo --peer NAME`)."]
    lines += ["*n/a* where the library does not hand out what a check needs. A dequantized twin that cannot"]
    lines += ["be had counts as not applicable, not as a failure.", ""]
    lines += [f"| library | architectures | {' | '.join(CHECKS)} | coverage, mean |"]
    lines += ["| --- " * (len(CHECKS) + 3) + "|"]
    for name, results in libraries.items():
        cells = [_share(results, check) for check in CHECKS]
        covered = [result.coverage or 0.0 for result in results]
        lines.append(f"| {name} | {len(results)} | {' | '.join(cells)} | {statistics.mean(covered):.1%} |")
    return "\n".join([*lines, ""])


def _share(results: Sequence[Result], check: str) -> str:
    verdicts = [getattr(result, check) for result in results]
    applicable = [verdict for verdict in verdicts if not verdict.startswith(NOT_APPLICABLE)]
    return f"{sum(verdict == OK for verdict in applicable)} of {len(applicable)}" if applicable else "n/a"


def _remaining(results: Sequence[Result]) -> str:
    """The weights that stay float: how many for each reason, then every one."""
    counts = Counter(reason for result in results for _, _, reason in result.remaining)
    lines = ["## What stays float", "", "Over all tiny models; `w8a16.plan(model)` lists it for yours.", ""]
    lines += ["| reason | weights | |", "| --- | --: | --- |"]
    lines += [f"| `{reason}` | {count} | {REASONS[reason]} |" for reason, count in counts.most_common()]
    lines += ["", "Every one of them; `*` stands for any number.", ""]
    lines += ["| architecture | coverage | published | reason | weights |", "| --- | --: | --: | --- | --- |"]
    for result in results:
        for reason in dict.fromkeys(reason for _, _, reason in result.remaining):
            shares = (result.coverage, result.published_coverage)
            cells = [*("" if share is None else f"{share:.2%}" for share in shares), f"`{reason}`"]
            lines.append(f"| {result.name} | {' | '.join(cells)} | {_weights(result, reason)} |")
    return "\n".join([*lines, ""])


def _weights(result: Result, reason: str) -> str:
    """Names and shapes; weights that differ only in the numbers within their names are one."""
    found = Counter(
        (re.sub(r"\b\d+\b", "*", name), tuple(shape))
        for name, shape, other in result.remaining
        if other == reason
    )
    return ", ".join(
        f"`{name}` {list(shape)}" + (f" ({count} times)" if count > 1 else "")
        for (name, shape), count in found.items()
    )
