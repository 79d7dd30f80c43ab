"""Gradients with respect to an input, or to the embedded tokens where the inputs are whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.entry import SEED, Inputs
from zoo.outputs import call


def gradients(model: nn.Module, inputs: Inputs) -> Tensor | None:
    """The gradient of a random combination of all outputs; None where none arrives.

    A plain sum of outputs would not do: behind a normalization its gradient is zero.
    """
    leaf, inputs = _float_input(inputs)
    if leaf is not None:
        outputs = call(model, inputs)
    else:
        leaf, outputs = _call_with_leaf(model, inputs)
    # Drawn for all of them: which ones ask for gradients differs where weights are frozen. Not drawn as
    # the outputs lie in memory, in which two models may differ.
    torch.manual_seed(SEED)
    drawn = [(output, torch.randn(output.shape).to(output)) for output in outputs]
    terms = [(output * factor).nan_to_num(posinf=0.0, neginf=0.0).sum() for output, factor in drawn]
    terms = [term for term in terms if term.requires_grad]
    if leaf is None or not terms:
        return None
    total = torch.stack(terms).sum()
    (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
    return gradient if gradient is not None and bool(gradient.any()) else None


def _call_with_leaf(model: nn.Module, inputs: Inputs) -> tuple[Tensor | None, list[Tensor]]:
    """Run the model with what its first embedding gives made a leaf."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _args: Any, output: Any) -> Any:
        if leaves or not isinstance(output, Tensor):
            return output
        leaves.append(output.detach().requires_grad_())
        return leaves[0].clone()

    embeddings = [module for module in model.modules() if hasattr(module, "num_embeddings")]
    handles = [module.register_forward_hook(cut) for module in embeddings]
    try:
        outputs = call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return (leaves[0] if leaves else None), outputs


def _float_input(inputs: Inputs) -> tuple[Tensor | None, Inputs]:
    """The first floating-point input as a leaf, and the inputs with it in its place."""
    pairs = list(inputs.items()) if isinstance(inputs, Mapping) else list(enumerate(inputs))
    for key, value in pairs:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = value.detach().requires_grad_()
            changed = {k: leaf.clone() if k == key else v for k, v in pairs}
            return leaf, changed if isinstance(inputs, Mapping) else tuple(changed.values())
    return None, inputs
