"""Checkpoints as other libraries write them, built by hand from the layout of their tensors."""

import json

import torch
from safetensors.torch import save_file

LAYER_ENDING = "_proj.weight"


def int8_of(weight, groups=1, seed=0):
    """Codes that use the whole range, -128 as well, and scales that are exact in bfloat16."""
    n, k = weight.shape
    generator = torch.Generator().manual_seed(seed + n * 1000 + k)
    codes = torch.randint(-128, 128, (n, k), dtype=torch.int8, generator=generator)
    scales = (torch.rand(n, groups, generator=generator) * 0.002 + 0.001).bfloat16().float()
    return codes, scales


def packed(name, codes, scales):
    n, k = codes.shape
    rows = torch.zeros(n, -(-k // 4) * 4, dtype=torch.uint8)
    rows[:, :k] = (codes.to(torch.int16) + 128).to(torch.uint8)
    layer = name.removesuffix(".weight")
    return {
        f"{layer}.weight_packed": rows.view(torch.int32),
        f"{layer}.weight_scale": scales,
        f"{layer}.weight_shape": torch.tensor([n, k]),
    }


def plain(name, codes, scales):
    layer = name.removesuffix(".weight")
    return {name: codes, f"{layer}.weight_scale": scales}


def bitsandbytes(name, codes, scales):
    layer = name.removesuffix(".weight")
    return {
        name: codes,
        f"{layer}.SCB": scales[:, 0] * 127,
        f"{layer}.weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def quanto(name, codes, scales):
    layer = name.removesuffix(".weight")
    ones = {f"{layer}.{part}_scale": torch.tensor(1.0) for part in ("input", "output")}
    return {f"{name}._data": codes, f"{name}._scale": scales.bfloat16(), **ones}


def torchao(name, codes, scales):
    layer = name.removesuffix(".weight")
    return {
        f"{layer}._weight_qdata": codes,
        f"{layer}._weight_scale": scales,
        f"{layer}._weight_zero_point": torch.zeros(scales.shape, dtype=torch.int8),
    }


def compressed_tensors_config(strategy="channel", group_size=None, form="pack-quantized", **weights):
    args = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": strategy, "group_size": group_size}
    group = {"targets": ["Linear"], "weights": {**args, "dynamic": False, **weights}}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
    }


FORMATS = {
    "packed": (packed, compressed_tensors_config()),
    "packed, groups": (packed, compressed_tensors_config("group", 8)),
    "int-quantized": (plain, compressed_tensors_config(form="int-quantized")),
    "bitsandbytes": (bitsandbytes, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "quanto": (quanto, None),
    "torchao": (torchao, {"quant_method": "torchao", "quant_type": {}}),
}


def write(model, folder, name, change=lambda state: None):
    """Write `model` as one of `FORMATS`, and give back its codes and scales by the name of the weight.

    The model gets the values that they stand for.
    """
    write_layer, config = FORMATS[name]
    held, state = {}, {}
    for number, (key, value) in enumerate(model.state_dict().items()):
        if not key.endswith(LAYER_ENDING):
            state[key] = value.clone()
            continue
        groups = value.shape[1] // 8 if "groups" in name else 1
        codes, scales = held[key] = int8_of(value, groups, number)
        state |= write_layer(key, codes, scales)
        n, k = codes.shape
        value.copy_((codes.view(n, groups, -1) * scales[:, :, None]).reshape(n, k))
    change(state)
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    described = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    if config is not None:
        described["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(described))
    return held
