"""Experts classes of the installed transformers, one at a time, in sizes that cost nothing."""

from __future__ import annotations

import functools
import importlib
import pathlib
import re
from typing import Any

import torch
from torch import Tensor, nn

EXPERTS, HIDDEN, INNER, CHOICES = 4, 64, 48, 2

VARIANTS = {
    "gate": "mixtral.MixtralExperts",
    "no gate": "nemotron_h.NemotronHExperts",
    "transposed": "aria.AriaExperts",
    "transposed, interleaved, with bias": "gpt_oss.GptOssExperts",
    "post norm": "muse_spark.MuseSparkExperts",
}
"""One class for each set of options of transformers' decorator."""


class ExpertsConfig:
    """Answers what an experts class asks its configuration for."""

    _experts_implementation: str | None = "eager"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if any(part in name for part in ("limit", "alpha", "softcap")):
            return 1.7
        if "eps" in name:
            return 1e-5
        if "act" in name.split("_") or "activation" in name:
            return "silu"
        if "latent" in name:
            return None
        if "expert" in name and "size" not in name:
            return 0 if name.startswith("zero") else EXPERTS
        if "intermediate" in name or "ffn" in name:
            return INNER
        if "size" in name or "dim" in name:
            return HIDDEN
        raise AttributeError(name)


def experts_class(name: str) -> type[nn.Module]:
    """`"mixtral.MixtralExperts"`: the class of that model folder."""
    folder, _, class_name = name.partition(".")
    module = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    found: type[nn.Module] = getattr(module, class_name)
    return found


def make_experts(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A module of that class with Gaussian weights."""
    module = experts_class(name)(ExpertsConfig())
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.to(dtype)


def routed(tokens: int = 9, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, the experts chosen for each, and their weights."""
    chosen = torch.stack([torch.randperm(EXPERTS)[:CHOICES] for _ in range(tokens)])
    return torch.randn(tokens, HIDDEN).to(dtype), chosen, torch.rand(tokens, CHOICES).to(dtype)


def decorated_classes() -> list[str]:
    """Every class in transformers that its decorator makes, by folder and name; read from the sources."""
    return [name for name, source in _experts_sources() if source.startswith("@use_experts_implementation")]


def other_classes() -> list[str]:
    """Every other class named after experts that holds three-dimensional parameters of its own."""
    stack = re.compile(r"nn\.Parameter\(\s*torch\.\w+\(\(?[^,()]+,[^,()]+,[^,()]+\)")
    decorated = decorated_classes()
    return [name for name, source in _experts_sources() if stack.search(source) and name not in decorated]


@functools.cache
def _experts_sources() -> list[tuple[str, str]]:
    import transformers

    found = []
    for path in sorted((pathlib.Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        text = path.read_text()
        if path.stem != f"modeling_{path.parent.name}" or "Expert" not in text:
            continue
        for source in re.split(r"\n\n\n(?=class |@)", text):
            name = re.match(r"(?:@.*\n)*class (\w*Expert\w*)\(", source)
            if name:
                found.append((f"{path.parent.name}.{name.group(1)}", source))
    return found
