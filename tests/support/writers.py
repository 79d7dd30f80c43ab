"""Programs that write an output folder, and a place where they are killed, disturbed and raced."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from support import stand_in
from support.files import checksums
from support.zygote import Ended, Zygote

STAGE = re.compile(r"\.out\.w8a16-\d+\.partial")


@dataclass(frozen=True)
class Writer:
    """One program under test."""

    name: str
    entry: str
    """`module:function`, called with SRC, DST and perhaps --clean."""
    make_source: Callable[[Path], Path]


def make_checkpoint(folder: Path) -> Path:
    """Two shards of a few blocks, an index, and side files, one in a sub-folder."""
    torch.manual_seed(0)
    (folder / "inner").mkdir(parents=True)
    shards = {
        f"model-0000{number}-of-00002.safetensors": {
            f"layers.{number}.weight": torch.randn(512, 640).bfloat16(),
            f"layers.{number}.bias": torch.randn(512),
            f"norm.{number}.weight": torch.ones(640),
        }
        for number in (1, 2)
    }
    for name, tensors in shards.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, tensors in shards.items() for key in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "vocab.txt").write_text("one\ntwo\n")
    (folder / "inner" / "words.txt").write_text("three\n")
    return folder


WRITERS = [
    Writer("stand-in", "support.stand_in:main", stand_in.make_source),
    Writer("quantize", "support.command_line:main", make_checkpoint),
]


class Trials:
    """Runs of one writer into `target`, one after the other or at once."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.source = writer.make_source(folder / "source")
        self.work = folder / "work"
        self.target = self.work / "out"
        self.work.mkdir()
        (folder / "scratch").mkdir()
        self.zygote = Zygote(writer.entry, folder / "scratch")
        self._before = checksums(self.source)
        assert self.run().code == 0
        self.complete = checksums(self.target)
        """What a complete output holds; the same input always gives the same bytes."""
        self.clear()

    def start(self, *options: str, stopped: bool = False) -> int:
        return self.zygote.start(self.source, self.target, *options, stopped=stopped)

    def run(self, *options: str) -> Ended:
        return self.zygote.run(self.source, self.target, *options)

    def found(self) -> tuple[bool, list[str]]:
        """Check that the input is as it was, that nothing but the output and stages is there, and that
        an output is complete; return whether there is one, and the names of the stages."""
        assert checksums(self.source) == self._before
        names = sorted(path.name for path in self.work.iterdir())
        written = "out" in names
        stages = [name for name in names if STAGE.fullmatch(name)]
        assert names == sorted(stages + ["out"] * written)
        if written:
            assert checksums(self.target) == self.complete
        return written, stages

    def clear_output(self) -> None:
        shutil.rmtree(self.target)

    def clear(self) -> None:
        for path in self.work.iterdir():
            shutil.rmtree(path)
