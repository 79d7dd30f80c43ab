"""int8 models in transformers: importing this makes `from_pretrained` and `save_pretrained` know them.

    import w8a16.integrations.transformers as w8

    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=w8.W8A16Config())
    model.save_pretrained("int8")                           # AutoModelForCausalLM.from_pretrained("int8")
    model = w8.from_pretrained(folder)                      # the same in one call

and what is known of model folders without loading them: `load_float`, `skeleton`.
"""

from __future__ import annotations

from typing import Any

from w8a16.errors import MissingExtraError
from w8a16.integrations.transformers_folders import load_float, skeleton, streaming_skeleton

_QUANTIZER = ("W8A16Config", "W8A16Quantizer", "attach", "from_pretrained", "register")

__all__ = ["load_float", "skeleton", "streaming_skeleton", *_QUANTIZER]


def __getattr__(name: str) -> Any:
    """What needs transformers itself.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    if name not in _QUANTIZER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("transformers", "transformers", name) from error
    from w8a16.integrations import transformers_quantizer

    return getattr(transformers_quantizer, name)


def _register_if_installed() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        return
    from w8a16.integrations.transformers_quantizer import register

    register()


_register_if_installed()
