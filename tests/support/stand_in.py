"""A small program that writes as the quantizer does: threads, blocks, a stage, exit codes.

`main(["SRC", "DST"])` turns every byte of SRC's `*.bin` files over, block by block, and copies `*.txt`.
"""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from w8a16.checkpoint.container import disk
from w8a16.checkpoint.output.stage import Leftover, Stage, check_output, staged
from w8a16.errors import W8A16Error

BLOCK = 16 * 1024
TURNED = bytes(255 - value for value in range(256))


def main(arguments: list[str]) -> int:
    source, target = Path(arguments[0]), Path(arguments[1])
    try:
        write(source, target, clean="--clean" in arguments)
    except W8A16Error as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 5
    return 0


def write(source: Path, target: Path, *, clean: bool = False, threads: int = 2) -> None:
    check_output(source, target)
    need = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    with staged(target, need_bytes=need, clean=clean, report=report) as stage:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(
                lambda file: turn_over(file, stage.path / file.name), sorted(source.glob("*.bin"))
            ):
                pass
        copy_texts(source, stage)


def report(leftover: Leftover) -> None:
    action = "removed" if leftover.removed else "found"
    print(f"{action} {leftover.path.name}: {leftover.size} bytes, {leftover.seconds:.0f} s old")


def turn_over(source: Path, target: Path) -> None:
    reading = disk.open_source(source)
    try:
        with written(target) as writing:
            size, offset = source.stat().st_size, 0
            while offset < size:
                block = memoryview(bytearray(min(BLOCK, size - offset)))
                disk.read_at(reading, block, offset, source)
                disk.write_at(writing, memoryview(bytes(block).translate(TURNED)), offset, target)
                offset += len(block)
    finally:
        disk.discard(reading)


@contextlib.contextmanager
def written(target: Path):
    writing = disk.create(target)
    try:
        yield writing
    except BaseException:
        disk.discard(writing)
        raise
    disk.finish(writing, target)


def copy_texts(source: Path, stage: Stage) -> None:
    for file in sorted(source.rglob("*.txt")):
        copy = stage.path / file.relative_to(source)
        disk.make_folder(copy.parent)
        disk.copy_file(file, copy)


def make_source(folder: Path) -> Path:
    """What `main` reads: three files of a few blocks, one of them empty, and a text in a sub-folder."""
    (folder / "inner").mkdir(parents=True)
    for number, size in enumerate((5 * BLOCK + 77, 0, 3 * BLOCK)):
        (folder / f"part-{number}.bin").write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    (folder / "inner" / "words.txt").write_text("one\ntwo\n")
    return folder
