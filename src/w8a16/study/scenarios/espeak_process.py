"""The child process that drives libespeak-ng: requests as JSON on stdin, 16-bit samples on stdout.

The library keeps its state in globals and may end the process when its data are missing; a fresh
process for each batch of requests makes the samples a function of the requests and keeps an accident
away from the caller. This file is run by its path, without the package: it imports no torch.

stdin: {"library": path, "requests": [[text, voice, words a minute, pitch 0..99], ...]}; the current
folder is the one that holds espeak-ng-data.
stdout: one line of JSON, {"rate": samples a second, "lengths": [samples of each request]}, then the
samples, int16, little-endian, one request after the other.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback before espeak_Synth returns
_DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report missing data instead of ending the process
_RATE, _PITCH = 1, 3
_UTF8 = 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _opened(path: str) -> tuple[Any, int]:
    library = ctypes.CDLL(path)
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
        ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    library.espeak_SetSynthCallback.argtypes = [_Callback]
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, b".", _DO_NOT_EXIT)
    if rate <= 0:
        raise SystemExit("libespeak-ng found no espeak-ng-data beside it")
    return library, rate


def _synthesised(library: Any, requests: list[tuple[str, str, int, int]]) -> list[bytes]:
    pieces: list[bytes] = []

    def receive(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _Callback(receive)  # kept alive until the last request is done
    library.espeak_SetSynthCallback(callback)
    utterances = []
    for text, voice, rate, pitch in requests:
        pieces.clear()
        if library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"libespeak-ng has no voice {voice!r}")
        library.espeak_SetParameter(_RATE, rate, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        if library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None):
            raise SystemExit(f"libespeak-ng refused {text!r}")
        library.espeak_Synchronize()
        utterances.append(b"".join(pieces))
    return utterances


def main() -> None:
    """Answer the one message on stdin."""
    message = json.load(sys.stdin)
    library, rate = _opened(message["library"])
    utterances = _synthesised(library, message["requests"])
    head = {"rate": rate, "lengths": [len(u) // 2 for u in utterances]}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + b"".join(utterances))


if __name__ == "__main__":
    main()
