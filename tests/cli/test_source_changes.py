"""A source that is cut, exchanged or overwritten while it is read: a clean error, or the old content."""

import os
import shutil

import pytest

from support.files import checksums
from support.writers import make_checkpoint

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def source(tmp_path):
    return make_checkpoint(tmp_path / "source")


@pytest.fixture
def dst(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "int8"


def change(file, how):
    if how == "cut":
        os.truncate(file, file.stat().st_size // 3)
    elif how == "emptied":
        os.truncate(file, 0)
    elif how == "removed":
        file.unlink()
    elif how == "exchanged":
        other = file.with_name("other")
        other.write_bytes(file.read_bytes()[:-8] + b"\0" * 8)
        os.replace(other, file)
    else:
        with file.open("r+b") as opened:  # every weight, same size
            opened.seek(-(file.stat().st_size // 2), os.SEEK_END)
            opened.write(b"\x3f" * 1000)


class Changing:
    """`os.preadv`, which changes a file before its n-th call."""

    _real = staticmethod(os.preadv)

    def __init__(self, file=None, how=None, at=0):
        self.file, self.how, self.at, self.calls = file, how, at, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == self.at:
            change(self.file, self.how)
        return self._real(*arguments)


@pytest.mark.parametrize("how", ["cut", "emptied", "removed", "exchanged", "overwritten"])
def test_it_changes_before_each_read(run, source, dst, monkeypatch, how):
    pristine = shutil.copytree(source, source.with_name("pristine"))
    counting = Changing()
    monkeypatch.setattr(os, "preadv", counting)
    assert run("quantize", source, dst).code == 0
    complete, outcomes = checksums(dst), set()
    shutil.rmtree(dst)
    for at in range(1, counting.calls + 1):
        monkeypatch.setattr(os, "preadv", Changing(source / SHARD, how, at))
        result = run("quantize", source, dst)
        outcomes.add(result.code)
        if result.code == 0:
            assert checksums(dst) == complete, f"before read {at}"
            shutil.rmtree(dst)
        else:
            assert result.code == 5, result.err
            assert SHARD in result.err
        assert list(dst.parent.iterdir()) == []
        shutil.rmtree(source)
        shutil.copytree(pristine, source)
    assert 5 in outcomes
