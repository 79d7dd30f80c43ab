"""The quantizer that transformers calls while it loads, saves and dequantizes a model."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer

from w8a16.checkpoint import Manifest
from w8a16.convert import dequantize
from w8a16.errors import CheckpointError, UsageError
from w8a16.integrations.folders import some
from w8a16.integrations.int8_note import METHOD
from w8a16.integrations.transformers_quantizer.config import W8A16Config
from w8a16.integrations.transformers_quantizer.on_load import OnLoad, QuantizeArriving
from w8a16.integrations.transformers_quantizer.saving import manifest_of, what_to_store
from w8a16.integrations.transformers_quantizer.stored import Stored, manifest_of_files
from w8a16.layers import QuantizedModule
from w8a16.layers.frozen import hold_as_buffers, hold_as_parameters


class W8A16Quantizer(HfQuantizer):  # type: ignore[misc]  # transformers is not typed
    """Connects transformers' loading and saving to this library; users meet `W8A16Config` only."""

    quantization_config: W8A16Config
    pre_quantized: bool
    requires_calibration = False

    def __init__(self, quantization_config: W8A16Config, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        self._on_load: OnLoad | None = None
        self._stored: Stored | None = None
        self._is_spread = False
        self._reasons: dict[str, str] = {}
        self._shapes: dict[str, torch.Size] = {}

    # --- before loading -----------------------------------------------------------------------

    @property
    def quantized_element_size(self) -> float:
        """Bytes for each element of an int8 weight."""
        return 1

    def param_element_size(self, model: nn.Module, param_name: str, param: torch.Tensor) -> float:
        """Bytes for each element of a parameter once it is loaded, for device maps."""
        return 1 if self.param_needs_quantization(model, param_name) else param.element_size()

    def validate_environment(self, *arguments: Any, device_map: Any = None, **options: Any) -> None:
        """Refuse what cannot be right."""
        self._refuse_disk(device_map)

    def _refuse_disk(self, device_map: Any) -> None:
        if not self.pre_quantized and isinstance(device_map, dict) and "disk" in device_map.values():
            raise UsageError(
                "device_map: parts of the model are to stay on disk, where the float weights are; quantize "
                "the folder first (w8a16 quantize SRC DST, or load it on the CPU and save_pretrained), then "
                "load that with the same device_map"
            )

    def _process_model_before_weight_loading(self, model: Any, **options: Any) -> Any:
        manifest = self._known(model, options.get("checkpoint_files"))
        device_map = options.get("device_map")
        self._is_spread = isinstance(device_map, str) or (
            isinstance(device_map, dict)
            and (len(set(device_map.values())) > 1 or "disk" in device_map.values())
        )
        if manifest is None:
            self._refuse_disk(device_map)
            self._on_load = OnLoad(model, self.quantization_config, options.get("checkpoint_files") or ())
        else:
            self._reasons = manifest.kept_float
            self._stored = Stored.prepare(model, manifest, _kept_dtypes(model))
            _expect(model, manifest.non_persistent_buffers)
        self._shapes = _shapes(model)
        _after_tying(model, self._finish)
        return model

    def _known(self, model: nn.Module, files: Any) -> Manifest | None:
        """What was done to the model that the files hold, or None where they hold a float one."""
        manifest = self.quantization_config.stored() or manifest_of_files(files, model)
        if manifest is None and self.pre_quantized:
            raise CheckpointError(
                "config.json says that the weights are int8 (quant_method w8a16), but neither it nor the "
                "headers of the safetensors files say what was done to which module; quantize the model anew"
            )
        self.pre_quantized = manifest is not None
        return manifest

    # --- while loading ------------------------------------------------------------------------

    def param_needs_quantization(self, model: nn.Module, param_name: str, **options: Any) -> bool:
        """Whether a float parameter becomes int8 when it arrives."""
        return self._on_load is not None and self._on_load.wants(param_name)

    def get_quantize_ops(self) -> QuantizeArriving:
        """What quantizes it."""
        assert self._on_load is not None
        return QuantizeArriving(self._on_load)

    def update_weight_conversions(self, weight_conversions: list[Any], model: nn.Module) -> list[Any]:
        """What is stored in int8 has the names of the model itself: nothing is to be renamed or merged."""
        return [] if self._stored is not None else weight_conversions

    # --- after loading ------------------------------------------------------------------------

    def _finish(self, model: nn.Module, missing: Any) -> None:
        """All has arrived and is tied, but nothing is dispatched to its device yet."""
        _refuse_other_shapes(self._shapes, _shapes(model))
        if self._on_load is not None:
            plan = self._on_load.finish(missing or ())
            self._reasons = {row.name: row.reason for row in plan.rows if row.verdict == "float"}
            self._on_load = None
            if self._is_spread:
                hold_as_parameters(model, floats=False)
        elif self._stored is not None:
            self._stored.finish(missing)
            self._stored = None

    def _process_model_after_weight_loading(self, model: Any, **options: Any) -> Any:
        places = getattr(model, "hf_device_map", None) or {}
        if len(set(places.values())) <= 1 and "disk" not in places.values():
            hold_as_buffers(model)
        self.quantization_config.remember(manifest_of(model, self._reasons))
        model._weight_conversions = []  # int8 tensors are saved under the names that they have
        return model

    # --- saving and the way back --------------------------------------------------------------

    def is_serializable(self) -> bool:
        """Int8 models are saved as they are."""
        return True

    def get_state_dict_and_metadata(self, model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """The tensors to store, each once, and the manifest for the header of the file."""
        state, manifest, metadata = what_to_store(model, self._reasons)
        self.quantization_config.remember(manifest)
        return state, metadata

    @property
    def is_trainable(self) -> bool:
        """Adapters on top can be trained: gradients pass through to the inputs."""
        return True

    @property
    def is_compileable(self) -> bool:
        """`generate` may compile the model."""
        return True

    def _dequantize(self, model: Any, dtype: torch.dtype | str | None = None) -> Any:
        hold_as_buffers(model)
        dequantize(model)
        model.__dict__.pop("_weight_conversions", None)
        wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return model if wanted in (None, model.dtype) else model.to(wanted)


def attach(model: Any) -> Any:
    """Let transformers know that a model of its own was quantized in memory: `save_pretrained` then works.

    `from_pretrained` does this itself. Without it, `save_pretrained` would write a folder that nothing says
    is int8.

    Returns:
        The model itself.

    Raises:
        UsageError: it is no model of transformers, or nothing in it is int8.
    """
    if not isinstance(model, PreTrainedModel):
        raise UsageError(f"model: expected a model of transformers, got {type(model).__name__}")
    if not any(isinstance(module, QuantizedModule) for module in model.modules()):
        raise UsageError("the model has no int8 module: call w8a16.quantize(model) first")
    quantizer = W8A16Quantizer(W8A16Config(), pre_quantized=True)
    model.hf_quantizer, model.is_quantized, model.quantization_method = quantizer, True, METHOD
    quantizer.postprocess_model(model)
    return model


def _after_tying(model: Any, finish: Any) -> None:
    """Call `finish` once, when transformers has tied the weights of this model for the first time.

    That is after loading and before the parts are dispatched to their devices; there is no hook for it.
    """

    def tie_weights(missing_keys: set[str] | None = None, **options: Any) -> Any:
        del model.tie_weights
        result = model.tie_weights(missing_keys=missing_keys, **options)  # the class's own
        finish(model, missing_keys)
        return result

    model.tie_weights = tie_weights


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _refuse_other_shapes(before: dict[str, torch.Size], after: dict[str, torch.Size]) -> None:
    """Where there is a quantizer, older transformers put any shape into a model."""
    misfits = [
        f"{name} is {list(after[name])}, expected {list(shape)}"
        for name, shape in before.items()
        if after.get(name, shape) != shape
    ]
    if misfits:
        raise CheckpointError(f"the weights do not fit the model: {some(misfits)}")


def _kept_dtypes(model: Any) -> dict[str, torch.dtype]:
    """Patterns of weights that transformers keeps in float32 when the model has another dtype."""
    if hasattr(model, "_get_dtype_plan"):
        plan = model._get_dtype_plan(model.dtype)
    else:
        plan = getattr(model, "dtype_plan", None)
    return dict(plan or {})


def _expect(model: Any, buffers: tuple[str, ...]) -> None:
    """Buffers that only a skeleton needs are in the files of `w8a16 quantize`; transformers computes them."""
    patterns = [f"{re.escape(name)}$" for name in buffers]
    known = model._keys_to_ignore_on_load_unexpected  # a list of the class, or a set of the model
    joined = known | set(patterns) if isinstance(known, set) else [*(known or ()), *patterns]
    model._keys_to_ignore_on_load_unexpected = joined
