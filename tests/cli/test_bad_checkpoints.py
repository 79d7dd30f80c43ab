"""Broken checkpoints on the command line: one line, the exit code, the source as it was, nothing written."""

import shutil

import pytest

from support.bad_inputs import BAD_INPUTS, FILE
from support.files import checksums, not_hanging, write_raw

SOME = [
    "header of 2**64-1",
    "8 bytes cut off",
    "invalid UTF-8",
    "a key twice",
    "lists in a tensor",
    "overlap",
    "no bytes of 2**40",
    "dtype F4",
    "name '\\x1b[31m'",
    "a FIFO",
    "only a pickle",
    "a file and an index",
    "shard name '../x.safetensors'",
    "missing shards",
    "a key in another shard",
]


@pytest.fixture
def broken(bert, request):
    """A model folder whose weights are one of the broken ones."""
    (bad,) = (bad for bad in BAD_INPUTS if bad.name == request.param)
    (bert / FILE).unlink()
    bad.build(bert)
    return bad


@pytest.mark.transformers
@pytest.mark.parametrize("broken", SOME, indirect=True)
def test_quantize(run, bert, broken, dst, nothing_written):
    before = checksums(bert)
    with not_hanging():
        result = run("quantize", bert, dst)
    check(result, bert, broken)
    nothing_written(before)


@pytest.mark.transformers
@pytest.mark.parametrize("broken", SOME, indirect=True)
def test_inspect(run, bert, broken):
    before = checksums(bert)
    with not_hanging():
        check(run("inspect", bert), bert, broken)
    assert checksums(bert) == before


def check(result, folder, bad):
    assert (result.code, result.out) == (bad.error.exit_code, "")
    assert result.err.startswith(f"error: {folder}")
    for part in bad.parts:
        assert part in result.err
    assert result.err.replace("\n", "").isprintable()


@pytest.mark.transformers
def test_packed_weights(run, bert, dst, nothing_written):
    """A GPTQ folder whose config has lost its quantization_config."""
    packed = {"q.qweight": (1, 8), "q.qzeros": (1, 1), "q.g_idx": (8,)}
    fields, offset = {}, 0
    for name, shape in packed.items():
        end = offset + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        fields[name] = {"dtype": "I32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    write_raw(bert / FILE, fields, bytes(offset))
    result = run("quantize", bert, dst)
    assert result.code == 3
    assert result.err == (
        f"error: {bert / FILE}: already quantized (GPTQ: 1 tensors such as q.qweight); "
        "expected float weights\n"
    )
    nothing_written()


@pytest.mark.transformers
def test_weights_behind_a_link_are_fine(run, bert, dst, tmp_path):
    """Download caches keep the file elsewhere, and link to it."""
    shutil.move(bert / FILE, tmp_path / "blob")
    (bert / FILE).symlink_to(tmp_path / "blob")
    assert run("quantize", bert, dst).code == 0
