"""Will transformers find everything in an exported folder? Asked before it is written.

transformers' own loading code runs on tensors without values, as it does for skeletons. It renames and
converts weights in this format by other rules than float ones, and leaves what it does not find random.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.checkpoint import TensorInfo, shown
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors.layout import PACKED, SHAPE
from w8a16.integrations.folders import some
from w8a16.integrations.traced import Ledger
from w8a16.integrations.transformers_folders import quiet

_LOCK = threading.Lock()

Described = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


def check_loading(
    path: Path,
    model: nn.Module,
    tensors: Described,
    shapes: Mapping[str, tuple[int, int]],
    said: dict[str, Any],
) -> bool:
    """Let transformers load what would be written.

    Args:
        path: the int8 folder, for errors.
        model: of the class that is to be loaded.
        tensors: all that would be written.
        shapes: of each packed layer.
        said: the `quantization_config`.

    Returns:
        Whether it was checked; not so where compressed-tensors is not installed.

    Raises:
        CheckpointError: transformers fails, or does not find everything.
    """
    try:
        from compressed_tensors.compressors import PackedQuantizationCompressor
    except ImportError:
        return False
    infos = {name: TensorInfo(dtype, shape, 0, 0) for name, (dtype, shape) in tensors.items()}
    state = Ledger(infos).state()
    state |= {f"{layer}.{SHAPE}": torch.tensor(shape) for layer, shape in shapes.items()}
    cls: Any = type(model)
    config: Any = copy.deepcopy(model.config)
    config.quantization_config = said
    try:
        with quiet(), _unpacking_nothing(PackedQuantizationCompressor):
            _, info = cls.from_pretrained(
                None, config=config, state_dict=state, dtype="auto", output_loading_info=True
            )
    except Exception as error:  # its conversions may fail with anything
        raise CheckpointError(_refusal(path, model, shown(str(error)))) from error
    problems = [
        f"{what.replace('_', ' ')}: {some(sorted(map(str, names)))}" for what, names in info.items() if names
    ]
    if problems:
        raise CheckpointError(_refusal(path, model, "; ".join(problems)))
    return True


def _refusal(path: Path, model: nn.Module, why: str) -> str:
    return (
        f"{shown(path)}: transformers cannot load {type(model).__name__} from this format ({why}); "
        "--no-check writes the folder for other readers"
    )


@contextmanager
def _unpacking_nothing(compressor: type) -> Iterator[None]:
    """Have weights unpacked to tensors of the right shape, without values."""

    def decompress(cls: type, state: Mapping[str, Tensor], scheme: Any) -> dict[str, Tensor]:
        rest = {key: value for key, value in state.items() if key != PACKED}
        return {**rest, "weight": state["weight_scale"].new_empty(state[SHAPE].tolist())}

    with _LOCK:
        usual = compressor.__dict__["decompress"]
        compressor.decompress = classmethod(decompress)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            compressor.decompress = usual  # type: ignore[attr-defined]
