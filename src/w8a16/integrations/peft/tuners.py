"""How peft comes to use this: every method of adaptation injects its layers in one place.

`BaseTuner.inject_adapter` serves all methods, `get_peft_model`, `PeftModel.from_pretrained`, `add_adapter` of
transformers and the loaders of diffusers. (`LoraConfig._register_custom_module` belongs to one configuration
and is not saved with the adapter; `dispatch_default` is for LoRA only.) After it, tuner layers on int8 base
layers keep codes; before it, what would silently train nothing is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

from torch import nn

from w8a16.convert import dequantize
from w8a16.errors import UsageError
from w8a16.integrations.peft.float_base import as_float
from w8a16.integrations.peft.keeping import keep_codes
from w8a16.layers import QuantizedModule, W8A16MultiheadAttention

_MARK = "_knows_int8"


def install() -> None:
    """Let peft know int8 base layers, for adapters added from now on; a second call changes nothing."""
    from peft.tuners.lora.dora import DoraEmbeddingLayer
    from peft.tuners.lora.layer import _ConvNd
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils.other import ModulesToSaveWrapper

    _wrap(BaseTuner, "inject_adapter", _inject)
    _wrap(BaseTuner, "_unload_and_optionally_merge", _unload)
    _wrap(ModulesToSaveWrapper, "update", _copy_in_float)
    _wrap(_ConvNd, "update_layer", _with_float_base)
    _wrap(DoraEmbeddingLayer, "forward", _with_plain_weight)


def _wrap(cls: type, name: str, around: Callable[..., Any]) -> None:
    original = cls.__dict__[name]
    if getattr(original, _MARK, False):
        return

    @wraps(original)
    def wrapper(self: Any, *arguments: Any, **options: Any) -> Any:
        return around(original, self, *arguments, **options)

    setattr(wrapper, _MARK, True)
    setattr(cls, name, wrapper)


def _inject(
    original: Any, tuner: Any, model: nn.Module, adapter_name: str, *rest: Any, **options: Any
) -> Any:
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = tuner.peft_config[adapter_name]
    _refuse_int8_parameters(model, getattr(config, "target_parameters", None) or ())
    _refuse_attention(model, tuner, config)
    _refuse_buffers(model, getattr(config, "bias", "none"))
    if getattr(config, "ensure_weight_tying", False) and _is_to_be_tied(model) and _is_tied(model):
        raise UsageError(
            "ensure_weight_tying: peft does not see that int8 embeddings are tied, so it would adapt one of "
            "them; leave it out, or keep the embeddings float (exclude= when quantizing)"
        )
    result = original(tuner, model, adapter_name, *rest, **options)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            keep_codes(module)
    return result


def _refuse_int8_parameters(model: nn.Module, targets: Any) -> None:
    """peft looks for parameters; an int8 weight is none, so it would be passed over without a word."""
    int8 = [
        f"{path.replace('.base_layer', '')}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, QuantizedModule)
        for name in module.layouts
    ]
    hit = [key for key in int8 if any(f".{key}".endswith(f".{target}") for target in targets)]
    if hit:
        raise UsageError(
            f"target_parameters: {hit[0]} is int8, and peft adapts float parameters only: it would train "
            "nothing; target linear layers with target_modules, or keep these experts float "
            "(exclude= when quantizing)"
        )


def _refuse_attention(model: nn.Module, tuner: Any, config: Any) -> None:
    """peft's layer for `nn.MultiheadAttention` merges into the weight and back within every forward."""
    for path, module in model.named_modules():
        if not isinstance(module, W8A16MultiheadAttention) or isinstance(config.target_modules, type(None)):
            continue
        if tuner._check_target_module_exists(config, path) is True:
            raise UsageError(
                f"target_modules: {path} is an nn.MultiheadAttention in int8; peft writes its merged weight "
                "in every forward, which int8 would round each time; keep it float (exclude= when quantizing)"
            )


def _refuse_buffers(model: nn.Module, bias: Any) -> None:
    """peft marks biases as trainable, but an optimizer is given parameters only."""
    if not isinstance(bias, str) or bias == "none":
        return
    for path, module in model.named_modules():
        if isinstance(module, QuantizedModule) and module._buffers.get("bias") is not None:
            raise UsageError(
                f"bias={bias!r}: the bias of {path} (int8) is a buffer, so it would not be trained; use "
                "lora_bias=True, which trains one beside it, or name the layer in modules_to_save"
            )


def _unload(original: Any, tuner: Any, *arguments: Any, **options: Any) -> Any:
    """peft asks whether the embeddings are still tied by the address of a weight that int8 layers compute."""
    if not (_is_to_be_tied(tuner.model) and _is_tied(tuner.model)):
        return original(tuner, *arguments, **options)
    told = "Input and output embeddings are no longer tied"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", told)
        model = original(tuner, *arguments, **options)
    model.config.tie_word_embeddings = _is_tied(model)
    if not model.config.tie_word_embeddings:
        warnings.warn(f"{told}: config.tie_word_embeddings is False now", UserWarning, stacklevel=4)
    return model


def _is_to_be_tied(model: Any) -> bool:
    tied: bool = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    return tied and hasattr(model, "get_output_embeddings")


def _is_tied(model: Any) -> bool:
    """Whether the embeddings, adapted or not, are the same int8 tensors."""
    both = [model.get_input_embeddings(), model.get_output_embeddings()]
    first, second = (getattr(module, "base_layer", module) for module in both)
    if not isinstance(first, QuantizedModule) or not isinstance(second, QuantizedModule):
        return False
    return first.codes_of() is second.codes_of()


def _copy_in_float(original: Any, wrapper: Any, adapter_name: str, *rest: Any, **options: Any) -> Any:
    """What `modules_to_save` names is trained: its copy gets float weights, the int8 original stays."""
    known = adapter_name in wrapper.modules_to_save
    result = original(wrapper, adapter_name, *rest, **options)
    copy = wrapper.modules_to_save[adapter_name]
    if not known and any(isinstance(module, QuantizedModule) for module in copy.modules()):
        wrapper.modules_to_save[adapter_name] = dequantize(copy).requires_grad_(
            adapter_name == wrapper.active_adapter
        )
    return result


def _with_float_base(original: Any, layer: Any, *arguments: Any, **options: Any) -> Any:
    """LoRA makes convolutions of the class of the base layer, to be trained."""
    base = layer.get_base_layer()
    if not isinstance(base, QuantizedModule):
        return original(layer, *arguments, **options)
    with as_float(base):
        return original(layer, *arguments, **options)


def _with_plain_weight(original: Any, layer: Any, *arguments: Any, base_layer: Any, **options: Any) -> Any:
    """DoRA for embeddings makes a Parameter of the weight that it reads."""
    if isinstance(base_layer, QuantizedModule):
        base_layer = SimpleNamespace(weight=base_layer.dequantized())
    return original(layer, *arguments, base_layer=base_layer, **options)
