"""`w8a16 compare ... --repair kl=0.001 --recipe FILE`: the cheapest recipe that keeps a drift budget.

It starts from what the int8 folder spares, and looks at the same inputs as the comparison. Unlike the
comparison it needs the float model in memory, and a copy of it.
"""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from w8a16.checkpoint import as_resource_error, shown
from w8a16.cli.compare_report import WORST
from w8a16.cli.progress import status
from w8a16.cli.show import console, table
from w8a16.cli.stages import stages
from w8a16.convert import Recipe, size
from w8a16.convert.verdict import CHOSEN
from w8a16.errors import ComparisonError, OutputRefusedError, UsageError
from w8a16.integrations import transformers_folders
from w8a16.integrations.folder_pair import FolderPair
from w8a16.integrations.model_inputs import Inputs
from w8a16.study.repair import Budget, Repair, repair, write_repair


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    budget: Budget
    recipe: Path
    """The file to write."""


def order_of(budget: str | None, recipe: Path | None) -> Order | None:
    """Before the work: both options or none, a budget that can be read, a file that can be written.

    Raises:
        UsageError: one option without the other, or not a budget.
        OutputRefusedError: the file exists already, or its folder does not.
    """
    if budget is None and recipe is None:
        return None
    if budget is None:
        raise UsageError(
            "--recipe names the file that --repair writes: add --repair BUDGET, such as --repair kl=0.001"
        )
    if recipe is None:
        raise UsageError("--repair: expected --recipe FILE, too, the file to write the recipe to")
    if os.path.lexists(recipe):
        raise OutputRefusedError(f"--recipe {shown(recipe)}: exists already; remove it or name a new file")
    if not recipe.parent.is_dir():
        raise OutputRefusedError(f"--recipe {shown(recipe)}: no such folder: {shown(recipe.parent)}")
    return Order(Budget.parse(budget), recipe)


def carry_out(order: Order, pair: FolderPair, inputs: Inputs, task: str, quiet: bool) -> Repair:
    """Load the float model, find the recipe, and write it.

    Raises:
        BudgetError: no recipe keeps the budget.
        ResourceError: the file cannot be written.
    """
    with status("loading the float model", enabled=not quiet), transformers_folders.quiet():
        model = transformers_folders.load_float(pair.float_folder)
    batches = inputs.cast_to(getattr(model, "dtype", None))
    start = spared(pair.checkpoint.manifest.kept_float)
    with stages(quiet) as progress:

        def named(what: str, done: int, of: int) -> None:
            progress(f"repair: {what}", done, of)  # the comparison has a stage of weights, too

        try:
            found = repair(model, batches, order.budget, task=task, recipe=start, progress=named)
        except ComparisonError as error:
            raise error.followed_by(f"the inputs were {inputs.source}") from error
    try:
        write_repair(found, order.recipe)
    except OSError as error:
        raise as_resource_error(order.recipe, error) from error
    return found


def spared(kept_float: dict[str, str]) -> Recipe:
    """A recipe that spares what was spared by choice, and leaves all else to the usual rules.

    Args:
        kept_float: names of weights and reason codes, as in a manifest.
    """
    chosen = (*CHOSEN, "not_converted", "nonfinite")
    names = [glob.escape(name) for name, reason in kept_float.items() if reason in chosen]
    return Recipe(exclude=names or None)


def document(found: Repair, order: Order) -> dict[str, Any]:
    """The repair as plain data, with the file that was written."""
    return {**found.to_dict(), "file": str(order.recipe)}


def print_repair(found: Repair, order: Order, float_source: str) -> None:
    """What it came to, the weights that are held better, what each byte bought, and what to do next."""
    way = "at most" if found.better == "lower" else "at least"
    before, after = f"{found.value_before:.4g}", f"{found.value:.4g}"
    head = Text.assemble(
        "repair: ", (f"{found.metric} {way} {found.limit:.4g}", "bold"), f"; plain int8 has {before}, "
    )
    head.append(f"the recipe {after}")
    head.append(f"; {size(found.bytes_after)}, {size(found.bytes_added)} ({found.share_added:.2%}) more")
    console.print(head)
    upgraded = [choice for choice in found.choices if choice.held != "int8"]
    rest = f"{len(found.choices) - len(upgraded)} of {len(found.choices)} weights stay plain int8"
    if upgraded:
        for each in (_choice_table(found), _curve_table(found)):
            console.print(each)
    console.print(Text(rest))
    console.print(Text(f"wrote {shown(order.recipe)}"), soft_wrap=True)
    command = ("w8a16", "quantize", float_source, "DST", "--recipe", str(order.recipe))
    console.print(Text(f"next: {shown(_shell(command))}"), soft_wrap=True)


def _choice_table(found: Repair) -> Table:
    upgraded = [choice for choice in found.choices if choice.held != "int8"]
    upgraded.sort(key=lambda choice: -(choice.share or 0))
    title = "weights to hold better, the largest share of the drift first"
    if len(upgraded) > WORST:
        title += f" (the first {WORST} of {len(upgraded)})"
    result = table("weight", "held", "bytes", "why", right=("bytes",), title=title)
    for choice in upgraded[:WORST]:
        added = f"+{size(choice.bytes_added)}"
        result.add_row(Text(shown(choice.name)), choice.held, added, Text(shown(choice.reason)))
    return result


def _curve_table(found: Repair) -> Table:
    numbers = ("bytes", found.metric, "upgraded")
    result = table(*numbers, "measured on", right=numbers, title="what more bytes buy")
    for point in found.frontier:
        where = "int8" if point.real else "simulation"
        result.add_row(f"+{size(point.bytes_added)}", f"{point.value:.4g}", str(point.upgraded), where)
    return result


def _shell(arguments: Sequence[str]) -> str:
    return " ".join(shlex.quote(argument) for argument in arguments)
