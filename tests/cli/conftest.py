"""Run the command line in this process, and a tiny BERT folder to run it on."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from w8a16.cli import show
from w8a16.cli.app import app
from w8a16.cli.run import _run


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch, capsys):
    """`run("inspect", path)`: what `w8a16 inspect PATH` does, 80 columns wide, without a new process."""
    monkeypatch.setattr(show.console, "_width", 80)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["w8a16", *map(str, arguments)])
        capsys.readouterr()
        code = _run(app)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err or "--debug" in map(str, arguments)
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def bert_template(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    folder = tmp_path_factory.mktemp("template") / "bert"
    transformers.BertModel(config).eval().save_pretrained(folder)
    # Its handler writes to the stream of the first test, which is closed by now.
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    yield folder
    transformers.utils.logging.set_verbosity(before)


@pytest.fixture
def bert(bert_template, tmp_path) -> Path:
    """A fresh copy of the folder, alone in a folder of its own."""
    return Path(shutil.copytree(bert_template, tmp_path / "bert"))


@pytest.fixture
def dst(tmp_path) -> Path:
    """Where to write; the folder around it is watched by `nothing_written`."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "int8"


@pytest.fixture
def nothing_written(bert, dst):
    """Call it to prove that no output and no stage is left, and that the source is as it was."""
    from support.files import checksums

    def check(before=None):
        assert list(dst.parent.iterdir()) == []
        if before is not None:
            assert checksums(bert) == before

    return check
