"""Checkpoints for the streaming quantizer: a model, its shards, its skeleton, and what must come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import w8a16
from support.files import bits
from support.sharded import INDEX, shard_name
from w8a16.checkpoint import Shards, open_checkpoint, open_shards
from w8a16.checkpoint.skeleton import Piece, Skeleton
from w8a16.checkpoint.streaming import Options, Outcome, plan_checkpoint


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied tensors once, under their first key."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {key: tensor for key, tensor in state.items() if first.setdefault(id(tensor), key) == key}


def write_checkpoint(
    tensors: dict[str, Tensor], folder: Path, shard_of: Callable[[str], int] | None = None
) -> Shards:
    """Save tensors with the safetensors library: as one file, or each into the shard that is asked for."""
    folder.mkdir(parents=True)
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    if shard_of is None:
        save_file(tensors, folder / "model.safetensors")
        return open_shards(folder)
    places = {key: shard_of(key) for key in tensors}
    count = max(places.values()) + 1
    for number in range(count):
        here = {key: tensors[key] for key in tensors if places[key] == number}
        save_file(here, folder / shard_name(number, count))
    weight_map = {key: shard_name(number, count) for key, number in places.items()}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return open_shards(folder)


def in_turn(tensors: Iterable[str], shards: int) -> Callable[[str], int]:
    """Deal tensors out to shards one by one: codes, scales and biases of a module come from several."""
    places = {key: number % shards for number, key in enumerate(tensors)}
    return places.__getitem__


def emptied(model: nn.Module) -> nn.Module:
    """The model with its state dict on the meta device, in place, ties and all; other buffers stay."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        persistent = module._buffers.keys() - module._non_persistent_buffers_set
        for held, names in ((module._parameters, list(module._parameters)), (module._buffers, persistent)):
            for name in names:
                tensor = held[name]
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                    trained = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
                held[name] = made[id(tensor)]  # type: ignore[assignment]
    return model.eval()


def skeleton_of(
    model: nn.Module,
    *,
    sources: dict[str, tuple[Piece, ...]] | None = None,
    ignored: tuple[str, ...] = (),
) -> Skeleton:
    """Make a skeleton of the model; its tensors are stored under their own keys, or as `sources` says."""
    made = {key: (Piece(key),) for key in stored_state(model)} if sources is None else sources
    return Skeleton(emptied(model), made, ignored, "classes", type(model).__name__)


def stream(
    shards: Shards, skeleton: Skeleton, folder: Path, options: Options | None = None, **how: Any
) -> Outcome:
    """Quantize from files into a new folder."""
    folder.mkdir()
    return plan_checkpoint(shards, skeleton, options or Options()).run(folder, **how)


def tensors_in(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, read with the safetensors library."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for key, tensor in load_file(file).items():
            assert key not in found, key
            found[key] = tensor
    return found


def assert_same_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Same keys, dtypes, shapes and bits."""
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape), key
        assert bits(found[key]) == bits(tensor), key


def assert_as_in_memory(folder: Path, model: nn.Module, options: Options | None = None) -> None:
    """A folder holds what quantizing the model and saving it gives, manifest and all; converts the model."""
    options = options or Options()
    w8a16.quantize(
        model.eval(), recipe=options.recipe, strict=options.strict, on_nonfinite=options.on_nonfinite
    )
    reference = folder.with_name(f"{folder.name}-in-memory")
    w8a16.save(model, reference)
    assert_same_tensors(tensors_in(folder), tensors_in(reference))
    found, wanted = open_checkpoint(folder), open_checkpoint(reference)
    if len(found.shards.headers) == 1:
        assert list(found.shards.tensors) == list(wanted.shards.tensors)
    ours, theirs = found.manifest, wanted.manifest
    assert {path: (r.kind, r.weight_dtype, r.codes) for path, r in ours.modules.items()} == {
        path: (r.kind, r.weight_dtype, r.codes) for path, r in theirs.modules.items()
    }
    assert (ours.ties, ours.checksums) == (theirs.ties, theirs.checksums)
    assert sorted(ours.non_persistent_buffers) == sorted(theirs.non_persistent_buffers)
    assert ours.kept_float.keys() == theirs.kept_float.keys()


def assert_streams(build: Callable[[], nn.Module], folder: Path, shards: int = 1) -> Path:
    """Files of the model that `build` makes are quantized as the model is in memory; returns the output."""
    state = stored_state(_built(build))
    stored = write_checkpoint(state, folder / "float", in_turn(state, shards) if shards > 1 else None)
    stream(stored, skeleton_of(_built(build)), folder / "int8")
    assert_as_in_memory(folder / "int8", _built(build))
    return folder / "int8"


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()
