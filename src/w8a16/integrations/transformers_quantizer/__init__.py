"""int8 models in transformers' own `from_pretrained` and `save_pretrained`.

Imported where transformers is installed only; `w8a16.integrations.transformers` is the door for users.
"""

from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)

from w8a16.errors import UsageError
from w8a16.integrations.int8_note import METHOD
from w8a16.integrations.transformers_quantizer.config import W8A16Config
from w8a16.integrations.transformers_quantizer.loading import from_pretrained
from w8a16.integrations.transformers_quantizer.quantizer import W8A16Quantizer, attach
from w8a16.integrations.transformers_quantizer.stored import LOADED
from w8a16.layers.float_weight import FloatWeight

__all__ = ["METHOD", "W8A16Config", "W8A16Quantizer", "attach", "from_pretrained", "register"]


def register() -> None:
    """Make the method "w8a16" known to transformers; a second call changes nothing.

    Raises:
        UsageError: something else is registered under this name.
    """
    for known, add, ours in (
        (AUTO_QUANTIZATION_CONFIG_MAPPING, register_quantization_config, W8A16Config),
        (AUTO_QUANTIZER_MAPPING, register_quantizer, W8A16Quantizer),
    ):
        if METHOD not in known:
            add(METHOD)(ours)
        elif known[METHOD] is not ours:
            other = known[METHOD]
            raise UsageError(
                f"transformers knows another {METHOD!r} already: {other.__module__}.{other.__qualname__}"
            )
    # What stands for an int8 weight has values: the classes' own initialization leaves it alone.
    setattr(FloatWeight, LOADED, True)
