"""Every broken checkpoint: one error that names file and tensor, little memory, and nothing touched."""

import tracemalloc

import pytest

import w8a16
from support.bad_inputs import BAD_INPUTS
from support.files import Block, Untouched, checksums, not_hanging
from w8a16.checkpoint import open_shards

MOST_MEMORY = 64 << 20


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_opening(tmp_path, bad, traced):
    bad.build(tmp_path)
    before = listing(tmp_path)
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    with not_hanging(), pytest.raises(bad.error) as caught:
        open_shards(tmp_path)
    assert tracemalloc.get_traced_memory()[1] - start < MOST_MEMORY
    assert listing(tmp_path) == before
    assert type(caught.value) is bad.error
    text = str(caught.value)
    assert text.startswith(str(tmp_path))
    for part in bad.parts:
        assert part in text
    assert text.replace("\n", "").isprintable()
    assert len(text) < 1000


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_loading(tmp_path, bad):
    """`load` reads with the same reader, and leaves the model as it was."""
    bad.build(tmp_path)
    model = Block()
    untouched = Untouched(model)
    with not_hanging(), pytest.raises(bad.error, match=r"model\.safetensors") as caught:
        w8a16.load(model, tmp_path)
    for part in bad.parts:
        assert part in str(caught.value)
    untouched.check()


def test_exit_codes():
    assert {bad.error.exit_code for bad in BAD_INPUTS} == {3, 5}


def listing(folder):
    """Names and contents; the sums of what is no regular file, or has no end, are not asked for."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return names, {} if any(path.is_symlink() for path in folder.iterdir()) else checksums(folder)
