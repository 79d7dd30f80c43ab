"""The bytes of `pack-quantized`: those of the compressed-tensors package, for every shape."""

import pytest
import torch

from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors import pack_rows, unpack_rows

SHAPES = [(1, 1), (1, 4), (3, 5), (5, 7), (7, 8), (2, 31), (3, 32), (9, 33), (4, 0), (0, 6), (17, 129)]


def codes_of(shape):
    generator = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)


def test_a_word_by_hand():
    words = pack_rows(torch.tensor([[-128, -127, 0, 127, 1]], dtype=torch.int8))
    assert words.tolist() == [[0xFF800100 - 2**32, 0x81]]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_code_comes_back(shape):
    codes = codes_of(shape)
    words = pack_rows(codes)
    assert (words.dtype, words.shape) == (torch.int32, (shape[0], -(-shape[1] // 4)))
    assert torch.equal(unpack_rows(words, shape[1]), codes)


def test_what_is_filled_up_is_zero_whatever_was_there():
    out = torch.full((3, 2), -1, dtype=torch.int32)
    assert torch.equal(pack_rows(codes_of((3, 5)), out), pack_rows(codes_of((3, 5))))
    assert out.view(torch.uint8)[:, 5:].count_nonzero() == 0


def test_words_of_another_length_are_refused():
    with pytest.raises(CheckpointError, match="expected 2 words for 5 codes in a row, got 3"):
        unpack_rows(torch.zeros(2, 3, dtype=torch.int32), 5)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if 0 not in shape])
def test_the_package_packs_the_same_bytes(shape):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = codes_of(shape)
    assert torch.equal(pack_rows(codes), helpers.pack_to_int32(codes, 8))
    assert torch.equal(unpack_rows(helpers.pack_to_int32(codes, 8), shape[1]), codes)


@pytest.mark.parametrize("shape", [(3, 5), (6, 64), (5, 33)])
@pytest.mark.parametrize("group", [0, 1])
def test_the_packages_compressor_writes_the_same_tensors(shape, group):
    """From the float values that the codes stand for: the same words, shapes and scales."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    size = shape[1] if group else None  # one group, of any size
    scheme = quantization.QuantizationScheme(
        targets=["Linear"],
        weights=quantization.QuantizationArgs(
            num_bits=8, symmetric=True, strategy="group" if group else "channel", group_size=size
        ),
    )
    codes = codes_of(shape).clamp(min=-127)
    scales = torch.rand(shape[0], 1, generator=torch.Generator().manual_seed(1)) + 0.1
    state = {"weight": codes.float() * scales, "weight_scale": scales}
    made = compressors.PackedQuantizationCompressor.compress(state, scheme)
    assert torch.equal(made["weight_packed"], pack_rows(codes))
    assert made["weight_shape"].tolist() == list(shape)
