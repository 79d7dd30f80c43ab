"""What is measured, and the fingerprint that tells whether a finished cell or model still stands for it."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

import torch

from w8a16.study.scenarios import SIZES, Scenario

DTYPES = MappingProxyType({"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16})
# The simulated quantizers of a quick study; the full one takes all.
QUICK_VARIANTS = ("textbook", "per_tensor", "groups_128", "bits_6", "bits_4")
PEER_LIBRARIES = ("torchao", "optimum-quanto", "bitsandbytes", "sdnq")
_ROOMS = ("scenarios", "runner", "variants", "repair")


@dataclass(frozen=True)
class CellKey:
    """One model of the study."""

    scenario: str
    size: str
    seed: int

    def __str__(self) -> str:
        return f"{self.scenario}-{self.size}-{self.seed}"


@dataclass(frozen=True)
class Settings:
    """Which cells, and how thoroughly."""

    sizes: tuple[str, ...] = SIZES
    seeds: int = 3
    quick: bool = False
    """Fewer training steps, fewer variants."""
    made_by: tuple[str, ...] = field(default_factory=lambda: _digests(), repr=False)
    """Digests of the code, taken once: other processes must not take their own of files edited since."""

    def cells(self, scenarios: Sequence[Scenario]) -> list[tuple[Scenario, CellKey]]:
        """All cells, the sizes of each scenario from the largest down: long ones start first."""
        sizes = sorted(self.sizes, key=SIZES.index, reverse=True)
        return [
            (scenario, CellKey(scenario.name, size, seed))
            for size in sizes
            for scenario in scenarios
            if size in scenario.sizes
            for seed in range(self.seeds)
        ]

    def model_fingerprint(self, key: CellKey) -> str:
        """Eight hexadecimal digits that change with whatever makes another trained model."""
        return _digest([str(key), self.quick, versions(), self.made_by[0]])

    def cell_fingerprint(self, key: CellKey) -> str:
        """The same for a cell: also what is measured, and how."""
        peers = [installed(name) for name in PEER_LIBRARIES]
        return _digest([str(key), self.quick, versions(), peers, self.made_by])


def versions() -> dict[str, str]:
    """What the numbers depend on beside the settings: other versions round, shuffle or document otherwise."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    libraries = ("transformers", "scikit-learn", "w8a16")
    return found | {library: installed(library) or "not installed" for library in libraries}


def installed(library: str) -> str | None:
    """The version of a library; None if it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _digests() -> tuple[str, ...]:
    return tuple(code(room) for room in _ROOMS)


@cache
def code(room: str) -> str:
    """A digest of what the code of a room of the study does: comments and docstrings do not count."""
    folder = Path(__file__).parents[1] / room
    trees = [_without_docstrings(path) for path in sorted(folder.rglob("*.py"))]
    return _digest(trees)


def _without_docstrings(path: Path) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                part
                for part in body
                if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return ast.dump(tree)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
