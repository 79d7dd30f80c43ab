"""`w8a16 quantize SRC DST`: a transformers model folder becomes an int8 folder."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from w8a16.checkpoint import FILE_NAME, save, shown
from w8a16.cli.show import byte_progress, console, plan_table, print_json, status
from w8a16.convert import Plan, execute, prepare, size
from w8a16.errors import OutputRefusedError, ResourceError

_COPIED = {".json", ".txt", ".md", ".model", ".jinja", ".tiktoken", ".vocab", ".spm", ".bpe"}
_COPIED_NAMES = {"LICENSE", "NOTICE"}
_LONGEST_NAME = 255
_READ_WEIGHTS = (".safetensors", ".safetensors.index.json")


def run(
    src: Path,
    dst: Path,
    include: list[str] | None,
    exclude: list[str] | None,
    strict: bool,
    kinds: list[str] | None,
    on_nonfinite: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check the output, load, quantize, write to a stage beside DST, and rename it at the end."""
    check_output(src, dst)
    from w8a16.integrations import transformers as folder

    started = time.perf_counter()
    silence_transformers()
    with status(f"reading {shown(src)}", enabled=not as_json):
        model = folder.load_float(src)
    if dry_run:
        planned = prepare(model, include or None, exclude or None, strict, on_nonfinite, kinds or None).plan
        _report(planned, src, None, None, as_json, 0.0)
        return
    with byte_progress("quantizing", enabled=not as_json) as progress:
        executed = execute(
            model,
            include or None,
            exclude or None,
            strict,
            kinds=kinds or None,
            on_nonfinite=on_nonfinite,
            progress=progress,
        )
    stage = dst.with_name(f".w8a16-{os.getpid()}.partial")
    try:
        stage.mkdir()
        with status(f"writing {shown(dst)}", enabled=not as_json):
            save(model, stage, source=src.name, executed=executed)
            files = copy_side_files(src, stage)
        stage.rename(dst)
    except OSError as error:
        raise ResourceError(f"{shown(dst)}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    _report(executed, src, dst, files, as_json, time.perf_counter() - started)


def check_output(src: Path, dst: Path) -> None:
    """Refuse an output that exists, equals the input, or lies inside it; nothing has been read yet."""
    try:
        source, target = src.resolve(), dst.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, a name that is too long
        raise OutputRefusedError(f"{shown(dst)}: cannot be resolved: {error}") from error
    if target == source:
        raise OutputRefusedError(f"{shown(dst)}: is the input itself; name a new folder")
    if source in target.parents:
        raise OutputRefusedError(f"{shown(dst)}: lies inside the input {shown(src)}; name a folder elsewhere")
    if os.path.lexists(dst):
        raise OutputRefusedError(f"{shown(dst)}: exists already; remove it or name a new folder")
    if len(os.fsencode(dst.name)) > _LONGEST_NAME:
        raise OutputRefusedError(f"{shown(dst)}: the name is longer than {_LONGEST_NAME} bytes")
    if not dst.parent.is_dir():
        raise OutputRefusedError(f"{shown(dst)}: its parent folder does not exist")
    if not os.access(dst.parent, os.W_OK):
        raise OutputRefusedError(f"{shown(dst)}: its parent folder is not writable")


@dataclass
class SideFiles:
    """What of the source folder, besides the weights, was copied and what was left out."""

    copied: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def copy_side_files(src: Path, dst: Path) -> SideFiles:
    """Copy config, tokenizer and text files with their sub-folders; code, pickles and the rest stay."""
    files = SideFiles()
    for file in sorted(src.rglob("*")):
        name = file.relative_to(src)
        hidden = next((part for part in name.parts[:-1] if part.startswith(".")), None)
        if hidden:  # version control, download caches
            files.left_out += [] if f"{hidden}/" in files.left_out else [f"{hidden}/"]
            continue
        if not file.is_file() or _is_read_weight(name):
            continue
        wanted = file.suffix in _COPIED or file.name in _COPIED_NAMES
        if wanted and not file.name.endswith(".index.json"):  # an index names shards that are not here
            (dst / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, dst / name)
            files.copied.append(str(name))
        else:
            files.left_out.append(str(name))
    return files


def _is_read_weight(name: Path) -> bool:
    """Whether it is one of the weight files that the model was loaded from: they lie at the top."""
    return len(name.parts) == 1 and name.name.startswith("model") and name.name.endswith(_READ_WEIGHTS)


def _report(
    executed: Plan, src: Path, dst: Path | None, files: SideFiles | None, as_json: bool, seconds: float
) -> None:
    file_bytes = (dst / FILE_NAME).stat().st_size if dst else None
    if as_json:
        print_json(
            {
                "source": str(src),
                "output": str(dst) if dst else None,
                "file_bytes": file_bytes,
                "copied": files.copied if files else [],
                "left_out": files.left_out if files else [],
                "plan": executed.to_dict(),
            }
        )
        return
    console.print(plan_table(executed, "plan" if dst is None else "quantized"))
    if dst is None or files is None or file_bytes is None:
        console.print("dry run: nothing was written")
        return
    console.print(Text(f"wrote {shown(dst / FILE_NAME)} ({size(file_bytes)}) in {seconds:.1f} s"))
    console.print(Text(f"copied {len(files.copied)} files: {shown(', '.join(files.copied))}", style="dim"))
    if files.left_out:
        console.print(Text(f"left out: {shown(', '.join(files.left_out))}", style="yellow"))
    console.print(Text(f"see it: w8a16 inspect {shown(dst)}", style="dim"))


def silence_transformers() -> None:
    """We show our own progress and report what is missing; transformers would draw and log over it."""
    try:
        from transformers.utils import logging
    except ImportError:  # load_float reports it, with the name of the extra
        return
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
