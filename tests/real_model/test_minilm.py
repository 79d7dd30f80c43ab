"""The whole way on a real pretrained model: quantize, bounds, outputs, save, load."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import w8a16
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps
from w8a16.integrations.transformers import skeleton

pytestmark = pytest.mark.transformers


@pytest.fixture(scope="module")
def quantized(minilm: nn.Module) -> nn.Module:
    return w8a16.quantize(copy.deepcopy(minilm))


@pytest.fixture(scope="module")
def tokens() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(6, 24, dtype=torch.long)
    mask[3:, 17:] = 0
    return {"input_ids": torch.randint(1000, 30000, (6, 24), generator=generator), "attention_mask": mask}


def layers(model: nn.Module) -> list[tuple[str, w8a16.W8A16LinearLayer]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, w8a16.W8A16LinearLayer)]


def test_every_linear_is_int8(quantized: nn.Module) -> None:
    assert len(layers(quantized)) == 37
    assert not [n for n, m in quantized.named_modules() if type(m) is nn.Linear]


def test_every_weight_is_within_half_a_step(minilm: nn.Module, quantized: nn.Module) -> None:
    checked = 0
    for name, layer in layers(quantized):
        original = minilm.get_submodule(name).weight
        steps = error_in_half_steps(original, layer.int8_weights, layer.scales)
        assert float(steps.max()) <= 1 + HALF_STEP_SLACK, name
        largest = original.detach().abs().argmax(dim=1, keepdim=True)
        codes, signs = layer.int8_weights.gather(1, largest), original.detach().gather(1, largest).sign()
        assert torch.equal(codes.float(), 127 * signs), f"{name}: a largest weight changed its code or sign"
        checked += steps.numel()
    assert checked == 10_764_288


def test_output_equals_the_twin_with_dequantized_weights(
    quantized: nn.Module, tokens: dict[str, torch.Tensor]
) -> None:
    twin = w8a16.dequantize(copy.deepcopy(quantized))
    with torch.inference_mode():
        ours, theirs = quantized(**tokens).last_hidden_state, twin(**tokens).last_hidden_state
    assert float((ours - theirs).abs().max()) <= 2e-5 * float(theirs.abs().max())


def test_drift_from_the_float_model_is_that_of_eight_bits(
    minilm: nn.Module, quantized: nn.Module, tokens: dict[str, torch.Tensor]
) -> None:
    with torch.inference_mode():
        ours, theirs = quantized(**tokens).last_hidden_state, minilm(**tokens).last_hidden_state
    relative = float((ours - theirs).norm() / theirs.norm())
    assert 1e-4 < relative < 0.05  # neither a float model in disguise nor a broken one


def test_saved_and_loaded_into_a_skeleton_it_computes_the_same_bits(
    minilm_folder: Path, quantized: nn.Module, tokens: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    w8a16.save(quantized, tmp_path)
    loaded = w8a16.load(skeleton(minilm_folder), tmp_path)
    assert not [n for n, t in [*loaded.named_parameters(), *loaded.named_buffers()] if t.is_meta]
    with torch.inference_mode():
        assert torch.equal(loaded(**tokens).last_hidden_state, quantized(**tokens).last_hidden_state)


def test_device_and_dtype_probes_work(minilm: nn.Module, quantized: nn.Module) -> None:
    assert (quantized.device, quantized.dtype) == (minilm.device, minilm.dtype)
    half = copy.deepcopy(quantized).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert {layer.scales.dtype for _, layer in layers(half)} == {torch.float32}
    assert {layer.weight.dtype for _, layer in layers(half)} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_output_dtype(
    quantized: nn.Module, tokens: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    with torch.inference_mode():
        reference = quantized(**tokens).last_hidden_state
        output = copy.deepcopy(quantized).to(dtype)(**tokens).last_hidden_state
    assert output.dtype == dtype
    unit = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    assert float((output.float() - reference).norm() / reference.norm()) < 4 * unit
