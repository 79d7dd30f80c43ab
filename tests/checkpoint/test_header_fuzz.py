"""Against the safetensors library: no file is accepted that it rejects, and both read the same."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from support.mutations import BITS, damaged_file, good_file
from w8a16.checkpoint import read_header
from w8a16.checkpoint.container.header import DTYPE_NAMES, DTYPES, build_header
from w8a16.errors import CheckpointError


def theirs(content):
    """What the library reads: dtype, shape and bytes of each tensor, or None where it refuses."""
    try:
        tensors = deserialize(content)
    except SafetensorError:
        return None
    return {name: (entry["dtype"], entry["shape"], bytes(entry["data"])) for name, entry in tensors}


def ours(path, content):
    """The same, read by `read_header`; what it says where it refuses is fit to be printed."""
    path.unlink(missing_ok=True)  # some file systems flush a file that is written again to the disk
    path.write_bytes(content)
    refusal = None
    try:
        header = read_header(path)
    except CheckpointError as error:
        refusal = str(error)
    if refusal is not None:
        assert refusal.startswith(f"{path}: ")
        assert refusal.isprintable()
        return None
    return {
        name: (DTYPE_NAMES[info.dtype], list(info.shape), content[info.start : info.start + info.size])
        for name, info in header.tensors.items()
    }


def compare(path, seed, count):
    random, outcomes = Random(seed), Counter()
    for _ in range(count):
        content = damaged_file(random)
        expected, found = theirs(content), ours(path, content)
        if expected is None:
            assert found is None, f"accepted, but the library refuses it: {content!r}"
            outcomes["rejected by both"] += 1
        elif found is None:
            outcomes["stricter than the library"] += 1
        else:
            assert found == expected, content
            outcomes["accepted by both"] += 1
    return outcomes


def test_the_library_agrees(tmp_path):
    outcomes = compare(tmp_path / "x.safetensors", 0, 20_000)
    # Each outcome must be common, or the comparison says little.
    assert min(outcomes.values()) > 1000, outcomes
    assert len(outcomes) == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_the_library_agrees_on_a_million(tmp_path, seed):
    outcomes = compare(tmp_path / "x.safetensors", seed, 100_000)
    print(dict(outcomes))
    assert outcomes.total() == 100_000


def test_only_known_differences(tmp_path):
    """Of files without a fault we refuse empty names, dtypes of less than a byte, and rank above 8."""
    random, accepted = Random(0), 0
    for _ in range(3000):
        text, data = good_file(random)
        content = len(text.encode()).to_bytes(8, "little") + text.encode() + data
        expected, found = theirs(content), ours(tmp_path / "x.safetensors", content)
        assert expected is not None
        beyond = [
            name
            for name, (dtype, shape, _) in expected.items()
            if not name or BITS[dtype] < 8 or len(shape) > 8
        ]
        assert (found is None) == bool(beyond), content
        accepted += found is not None
    assert accepted > 1000


SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TENSORS = st.dictionaries(
    TEXTS.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(list(DTYPES.values())), SHAPES),
    max_size=6,
)


@settings(deadline=None, derandomize=True)
@given(tensors=TENSORS, metadata=st.dictionaries(TEXTS, TEXTS, max_size=3), random=st.randoms())
def test_what_is_written_is_read(tmp_path_factory, tensors, metadata, random):
    path = tmp_path_factory.mktemp("written") / "x.safetensors"
    head = build_header(tensors, metadata)
    sizes = [byte_count(dtype, shape) for dtype, shape in tensors.values()]
    content = head + random.randbytes(sum(sizes))
    path.write_bytes(content)
    header = read_header(path)
    assert len(head) % 64 == 0
    assert header.metadata == metadata
    assert {name: (info.dtype, info.shape) for name, info in header.tensors.items()} == tensors
    assert ours(path, content) == theirs(content)


def byte_count(dtype, shape):
    size = dtype.itemsize
    for dimension in shape:
        size *= dimension
    return size
