"""Adapters of peft on int8 models: importing this makes merging, unmerging and trained copies right.

    import w8a16.integrations.peft

    model = peft.get_peft_model(w8a16.from_pretrained(folder), peft.LoraConfig(...))
    ...                                                     # train
    model = model.merge_and_unload()
    print(w8a16.integrations.peft.merge_losses(model))      # what rounding the merged weights to int8 lost

float_base.py   a base layer as the float layer that it stands for, while peft computes with its weight
keeping.py      tuner layers that merge with one rounding, and unmerge to the codes that were there
losses.py       what a merge lost
tuners.py       how peft comes to use all that, and what it is refused
"""

from w8a16.errors import MissingExtraError

try:
    import peft  # noqa: F401
except ImportError as error:
    raise MissingExtraError("peft", "peft", "w8a16.integrations.peft") from error

from w8a16.integrations.peft.losses import MergeLoss, merge_losses
from w8a16.integrations.peft.tuners import install

__all__ = ["MergeLoss", "install", "merge_losses"]

install()
