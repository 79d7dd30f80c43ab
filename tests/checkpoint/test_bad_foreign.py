"""Checkpoints that are quantized already: refused, naming the method."""

import math

import pytest

from support.files import saved_block, write_raw
from w8a16.checkpoint import open_shards, refuse_quantized
from w8a16.checkpoint.container.header import DTYPES
from w8a16.errors import CheckpointError

FLOATS = "q.weight BF16 8x8, q.bias BF16 8, ids I64 1x8, mask U8 4x4, embed.weight F32 9x8, norm.scales F32 8"


def checkpoint(folder, *tensors):
    """A file of tensors given as `name dtype sizes`, of which the last of a name counts."""
    fields, offset = {}, 0
    listed = dict(tensor.split(" ", 1) for text in tensors for tensor in text.split(", "))
    for name, text in listed.items():
        dtype, _, sizes = text.partition(" ")
        shape = [int(size) for size in sizes.split("x")]
        end = offset + DTYPES[dtype].itemsize * math.prod(shape)
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    return open_shards(write_raw(folder / "model.safetensors", fields, bytes(offset)))


def refusal(shards, config=None):
    with pytest.raises(CheckpointError) as caught:
        refuse_quantized(shards, config)
    text = str(caught.value).removeprefix(str(shards.path))
    assert text.endswith("; expected float weights")
    return text.removesuffix("; expected float weights")


@pytest.mark.parametrize(
    "method, shown, tensors",
    [
        ("GPTQ", "q.qweight", "q.qweight I32 1x8, q.qzeros I32 1x1, q.scales F16 1x8, q.g_idx I32 8"),
        ("AWQ", "q.qweight", "q.qweight I32 8x1, q.qzeros I32 1x1, q.scales F16 1x8"),
        ("bitsandbytes", "q.weight", "q.weight U8 32x1, q.weight.absmax F32 1"),
        ("bitsandbytes", "q.weight", "q.weight I8 8x8, q.SCB F32 8"),
        ("fp8", "q.weight", "q.weight F8_E4M3 8x8, q.weight_scale_inv F32 1x1"),
        ("fp8", "q.weight", "q.weight F8_E4M3 8x8"),
        ("compressed-tensors", "q.weight_packed", "q.weight_packed I32 8x1, q.weight_scale F16 8x1"),
        ("an integer format", "q.weight", "q.weight I8 8x8, q.weight_scale F32 8x1"),
        ("nvfp4", "q.weight", "q.weight U8 8x4, q.weight_scale F8_E4M3 8x1, q.weight_scale_2 F32 1"),
        ("mxfp4", "up_blocks", "up_blocks U8 2x4x1x16, up_scales U8 2x4x1"),
        ("MLX", "q.weight", "q.weight U32 8x1, q.scales F16 8x1, q.biases F16 8x1"),
        ("HQQ", "q.W_q", "q.W_q U8 4x8, q.scale F16 8x1"),
        ("SVDQuant", "q.qweight", "q.qweight I8 8x4, q.wscales BF16 1x8"),
        ("quanto", "q.weight._data", "q.weight._data I8 8x8, q.weight._scale F32 8x1"),
        ("torchao", "q._weight_qdata", "q._weight_qdata I8 8x8, q._weight_scale F32 8x1"),
        ("AQLM", "q.codes", "q.codes I8 8x1x1, q.codebooks F16 1x256x1x8, q.scales F16 8x1x1x1"),
        ("EXL2", "q.q_weight", "q.q_weight I32 1x8, q.q_scale I32 1x1"),
        ("EXL3", "q.trellis", "q.trellis I16 1x1x16, q.suh F16 8"),
        ("w8a16", "q.int8_weights", "q.int8_weights I8 8x8, q.scales F32 8"),
        ("w8a16", "cell_int8_weights", "cell_int8_weights I8 8x8, cell_scales F32 8"),
    ],
)
def test_tensors_tell(tmp_path, method, shown, tensors):
    shards = checkpoint(tmp_path, FLOATS, tensors)
    assert refusal(shards) == f": already quantized ({method}: 1 tensors such as {shown})"


def test_float_weights_are_fine(tmp_path):
    shards = checkpoint(tmp_path, FLOATS, "blocks F32 2x2, _scales F32 2, q.SCB F32 8, codes I64 2x2")
    refuse_quantized(shards)
    refuse_quantized(shards, {"quantization_config": None, "quantization": "none"})


@pytest.mark.parametrize(
    "config, method",
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_algo": "NVFP4"}}, "NVFP4"),
        ({"quantization_config": {"quant_method": "evil\x1b[31m"}}, "evil\\x1b[31m"),
        ({"quantization_config": {"quant_method": ["x"]}}, "['x']"),
        ({"quantization_config": {}}, "unknown method"),
        ({"quantization_config": "x"}, "unknown method"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
    ],
)
def test_the_config_tells(tmp_path, config, method):
    assert refusal(checkpoint(tmp_path, FLOATS), config) == f": already quantized ({method})"


def test_ours(tmp_path):
    _, file = saved_block(tmp_path)
    assert refusal(open_shards(file)) == ": already quantized by w8a16"
