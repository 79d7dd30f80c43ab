"""Speech without recordings: eSpeak NG, a formant synthesiser that comes in a package with its voices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from w8a16.errors import MissingExtraError, ResourceError, UsageError

_CHILD = Path(__file__).with_name("espeak_process.py")


@dataclass(frozen=True)
class Utterance:
    """What to say and how."""

    text: str
    voice: str
    """A language and a variant, such as "en-us+f2"."""
    rate: int = 175
    """Words a minute."""
    pitch: int = 50
    """0 to 99."""


def synthesise(utterances: Sequence[Utterance]) -> tuple[list[Tensor], int]:
    """Speak; the same utterances in the same order give the same samples.

    Returns:
        The samples of each utterance, int16 `[n]`, and how many there are in a second.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
        UsageError: no such voice.
        ResourceError: the synthesiser does not start or stops early.
    """
    try:
        import espeakng_loader  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("espeakng-loader", "study", "speech") from error
    library, data = espeakng_loader.get_library_path(), Path(espeakng_loader.get_data_path())
    requests = [[u.text, u.voice, u.rate, u.pitch] for u in utterances]
    message = json.dumps({"library": str(library), "requests": requests}).encode()
    # Run in the data's folder: the library cuts longer paths off.
    command = [sys.executable, "-I", str(_CHILD)]
    done = subprocess.run(command, input=message, capture_output=True, cwd=data.parent, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if "has no voice" in reason:
            raise UsageError(reason)
        raise ResourceError(f"the speech synthesiser ended with code {done.returncode}: {reason}")
    head, _, body = done.stdout.partition(b"\n")
    about = json.loads(head)
    if sum(about["lengths"]) * 2 != len(body):
        raise ResourceError(f"the speech synthesiser sent {len(body)} bytes of {2 * sum(about['lengths'])}")
    samples = torch.frombuffer(bytearray(body), dtype=torch.int16) if body else torch.empty(0).short()
    return list(samples.split(about["lengths"])), int(about["rate"])
