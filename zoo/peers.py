"""The same report for other libraries that hold weights in int8, where they are installed.

Each is asked for int8 weights in as many places as it can. What is compared: whether the model runs,
whether it equals its own dequantized twin (where the library hands out dequantized weights), the share
of the weight bytes that became int8, and what becomes of ties, state dicts, copies and generation.
"""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from zoo.checks import TOLERANCE
from zoo.copies import check_copies, tie_groups
from zoo.entry import SEED, Entry, make_inputs, make_model
from zoo.outputs import call, describe, distance, drift, identical
from zoo.result import NOT_APPLICABLE, OK, Result

INT8 = (torch.int8, torch.uint8)
NOT_CHECKED = f"{NOT_APPLICABLE}: not checked, the library does not hand out dequantized weights"


def torchao(model: nn.Module) -> nn.Module:
    """Linear layers, as a tensor subclass."""
    quantization = importlib.import_module("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


def quanto(model: nn.Module) -> nn.Module:
    """Linear layers and two-dimensional convolutions, as a tensor subclass in modules of its own."""
    library = importlib.import_module("optimum.quanto")
    library.quantize(model, weights=library.qint8)
    library.freeze(model)
    return model


def bitsandbytes(model: nn.Module) -> nn.Module:
    """Linear layers; this library rounds the activations to int8 too."""
    layers = importlib.import_module("bitsandbytes").nn
    if type(model) is nn.Linear:
        made = layers.Linear8bitLt(
            model.in_features, model.out_features, bias=model.bias is not None, has_fp16_weights=False
        )
        made.load_state_dict(model.state_dict())
        return made.to("cpu").train(model.training)
    for name, child in model.named_children():
        setattr(model, name, bitsandbytes(child))
    return model


def sdnq(model: nn.Module) -> nn.Module:
    """Linear layers, convolutions and embeddings, of any size and name."""
    library = importlib.import_module("sdnq")
    made = library.sdnq_post_load_quant(
        model,
        weights_dtype="int8",
        quant_conv=True,
        quant_embedding=True,
        add_skip_keys=False,
        minimum_allowed_numel=0,
        minimum_allowed_channel_size=0,
    )
    return made[0] if isinstance(made, tuple) else made


PEERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torchao": torchao,
    "optimum-quanto": quanto,
    "bitsandbytes": bitsandbytes,
    "sdnq": sdnq,
}


def checker(name: str) -> Callable[[Entry], Result]:
    """The check of one entry with the library `name`."""
    if name not in PEERS:
        raise SystemExit(f"no such library: {name}; known are {', '.join(PEERS)}")
    quantize = PEERS[name]
    quantize(nn.Sequential(nn.Linear(32, 32)))  # a missing library is not the fault of the first entry
    return lambda entry: check(entry, quantize)


def check(entry: Entry, quantize: Callable[[nn.Module], nn.Module]) -> Result:
    """Quantize the model of `entry` with another library and see what holds."""
    started = time.perf_counter()
    result = Result(entry.name, entry.family)
    quantized = nn.Module()

    def runs() -> str:
        nonlocal quantized
        quantized = quantize(make_model(entry)).eval()
        result.coverage = _coverage(make_model(entry), quantized)
        expected = call(make_model(entry), make_inputs(entry))
        result.drift = drift(call(quantized, make_inputs(entry)), expected)
        return OK

    result.runs = _guarded(runs)
    if result.runs == OK:
        result.equals = _guarded(lambda: _equals(entry, quantized, result))
        result.ties = _guarded(lambda: _ties(entry, quantized))
        result.round_trip = _guarded(lambda: _round_trip(entry, quantized, quantize))
        result.copies = _guarded(lambda: check_copies(entry, quantized))
        result.generate = _guarded(lambda: _generate(entry, quantized))
        result.bfloat16 = _guarded(lambda: _bfloat16(entry, quantize))
    result.seconds = time.perf_counter() - started
    return result


def _guarded(run: Callable[[], str]) -> str:
    try:
        with torch.no_grad():
            return run()
    except Exception as error:
        return describe(error)


def _parts(tensor: Tensor | None) -> list[Tensor]:
    """The plain tensors that a tensor subclass is made of."""
    if tensor is None:
        return []
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    return [part for name in flatten()[0] for part in _parts(getattr(tensor, name))]


def _codes(model: nn.Module, name: str) -> set[int]:
    """Where the int8 codes of the parameter of this name are."""
    path, _, own = name.rpartition(".")
    try:
        held = getattr(model.get_submodule(path), own)
    except AttributeError:
        return set()
    return {part.data_ptr() for part in _parts(held) if part.dtype in INT8}


def _coverage(float_model: nn.Module, quantized: nn.Module) -> float:
    names: dict[int, list[str]] = {}
    sizes: dict[int, int] = {}
    for name, parameter in float_model.named_parameters(remove_duplicate=False):
        if parameter.dim() >= 2 and parameter.is_floating_point():
            names.setdefault(id(parameter), []).append(name)
            sizes[id(parameter)] = parameter.nbytes
    covered = sum(
        sizes[key] for key, group in names.items() if all(_codes(quantized, name) for name in group)
    )
    return covered / max(sum(sizes.values()), 1)


def _twin(entry: Entry, quantized: nn.Module) -> nn.Module | None:
    """The float model with the weights that the library dequantizes; None if it hands out none.

    Each name gets its own tensor: a tie that the library tore apart is torn in the twin too.
    """
    twin = make_model(entry)
    found = False
    for name, _ in list(twin.named_parameters(remove_duplicate=False)):
        path, _, own = name.rpartition(".")
        try:
            held: Any = getattr(quantized.get_submodule(path), own)
        except AttributeError:
            return None
        if hasattr(held, "__tensor_flatten__"):
            twin.get_submodule(path)._parameters[own] = nn.Parameter(held.dequantize())
            found = True
        elif held.dtype in INT8:
            return None
    return twin if found else None


def _equals(entry: Entry, quantized: nn.Module, result: Result) -> str:
    if not result.coverage:
        return f"{NOT_APPLICABLE}: nothing became int8"
    twin = _twin(entry, quantized)
    if twin is None:
        return NOT_CHECKED
    result.error = distance(call(quantized, make_inputs(entry)), call(twin, make_inputs(entry)))
    allowed = entry.tolerance.relative_error if entry.tolerance else TOLERANCE
    return OK if result.error <= allowed else f"relative error {result.error:.1e}, allowed {allowed:.0e}"


def _ties(entry: Entry, quantized: nn.Module) -> str:
    groups = tie_groups(make_model(entry))
    if not groups:
        return f"{NOT_APPLICABLE}: nothing is tied"
    for group in groups:
        places = []
        for name in group:
            path, _, own = name.rpartition(".")
            places.append({p.data_ptr() for p in _parts(getattr(quantized.get_submodule(path), own))})
        if not set.intersection(*places):
            return f"no longer one tensor: {' = '.join(group)}"
    return OK


def _round_trip(entry: Entry, quantized: nn.Module, quantize: Callable[[nn.Module], nn.Module]) -> str:
    fresh = quantize(make_model(entry, SEED + 1)).eval()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        torch.save(quantized.state_dict(), file)
        fresh.load_state_dict(torch.load(file, weights_only=False), strict=True)
    same = identical(call(fresh, make_inputs(entry)), call(quantized, make_inputs(entry)))
    return OK if same else "load_state_dict: other output bits"


def _generate(entry: Entry, quantized: nn.Module) -> str:
    if not entry.generate:
        return NOT_APPLICABLE
    made = make_inputs(entry)
    assert isinstance(made, dict)
    prompt = {name: value for name, value in made.items() if not name.startswith("decoder_")}
    models = [model for model in (quantized, _twin(entry, quantized)) if model is not None]
    tokens = []
    for model in models:
        torch.manual_seed(0)
        tokens.append(
            model.generate(**copy.deepcopy(prompt), max_new_tokens=8, min_new_tokens=8, do_sample=False)
        )
    if len(tokens) == 1:
        return NOT_CHECKED
    return OK if torch.equal(*tokens) else "other tokens than its twin"


def _bfloat16(entry: Entry, quantize: Callable[[nn.Module], nn.Module]) -> str:
    """Only that it runs: what the library promises about its rounding is not known here."""
    inputs = make_inputs(entry, torch.bfloat16)
    try:
        expected = call(make_model(entry).bfloat16(), inputs)
    except Exception as error:
        return f"{NOT_APPLICABLE}: the float model does not run in bfloat16: {describe(error)}"
    outputs = call(quantize(make_model(entry).bfloat16()).eval(), inputs)
    drift(outputs, expected)
    return OK
