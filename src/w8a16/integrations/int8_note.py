"""The note in a model's `config.json` that its weights are int8, without which transformers cannot know.

It is put in and taken out as text, so that all else stays as it was, to the byte.
"""

from __future__ import annotations

import json
from pathlib import Path

from w8a16.checkpoint import as_resource_error

METHOD = "w8a16"
NOTE = (
    "int8 weights of w8a16: `import w8a16.integrations.transformers` before from_pretrained, or use "
    "w8a16.integrations.transformers.from_pretrained; without it transformers fills the weights with "
    "random numbers"
)
_ENTRY = ',\n  "quantization_config": ' + json.dumps({"note": NOTE, "quant_method": METHOD})


def add_note(folder: Path) -> None:
    """Say in the config of a folder that its weights are int8, if there is a config.

    Raises:
        ResourceError: it cannot be read or written.
    """
    text = _read(folder)
    if text is None or "quantization_config" in json.loads(text):
        return
    head, brace, tail = text.rpartition("}")
    inside = head.rstrip()
    entry = _ENTRY if not inside.endswith("{") else _ENTRY.removeprefix(",")
    _write(folder, f"{inside}{entry}{head[len(inside) :]}{brace}{tail}")


def remove_note(folder: Path) -> None:
    """Take out of the config of a folder, if there is one, that its weights are int8.

    Raises:
        ResourceError: it cannot be read or written.
    """
    text = _read(folder)
    if text is None:
        return
    config = json.loads(text)
    held = config.get("quantization_config")
    if not isinstance(held, dict) or held.get("quant_method") != METHOD:
        return
    for entry in (_ENTRY, _ENTRY.removeprefix(",")):
        if entry in text:
            _write(folder, text.replace(entry, "", 1))
            return
    del config["quantization_config"]  # written by save_pretrained, or by hand
    _write(folder, json.dumps(config, indent=2) + "\n")


def _read(folder: Path) -> str | None:
    """The text of the config; None where there is none that is a JSON object."""
    file = folder / "config.json"
    try:
        text = file.read_bytes().decode("utf-8")
        return text if isinstance(json.loads(text), dict) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise as_resource_error(file, error) from error
    except (ValueError, RecursionError):
        return None


def _write(folder: Path, text: str) -> None:
    file = folder / "config.json"
    try:
        file.write_bytes(text.encode("utf-8"))
    except OSError as error:
        raise as_resource_error(file, error) from error
