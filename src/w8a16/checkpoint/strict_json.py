"""JSON as the safetensors format means it: one object, no key twice, no NaN, text that is Unicode."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from w8a16.checkpoint.printable import shown_list
from w8a16.errors import CheckpointError

_DIGITS = 20  # of 2**64

Fields = dict[str, Any]


def parse_object(raw: bytes, what: str, compact: Callable[[Fields], Any] = lambda fields: fields) -> Fields:
    """Parse UTF-8 bytes that hold one JSON object; `what` names them in messages: "the header".

    Integers of more than 20 digits, and "-0", come as floats: a reader refuses them where they stand.

    Args:
        raw: the bytes.
        what: the name.
        compact: called with each inner object as soon as it is complete, innermost first; what it
            returns takes the place of the object, so a large text need not become as many maps.

    Raises:
        CheckpointError: not UTF-8, not an object, a key twice at any level, NaN or Infinity, half of a
            surrogate pair, nested too deep.
    """
    escaped = b"\\u" in raw

    def take(pairs: list[tuple[str, Any]]) -> Any:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = sorted(name for name, count in counts.items() if count > 1)
            raise CheckpointError(f"duplicate key in {what}: {shown_list(twice)}")
        if escaped:
            _refuse_half_characters(fields, what)
        return compact(fields)

    def no_constant(name: str) -> NoReturn:
        raise CheckpointError(f"{what} is not a JSON object ({name} is no JSON value)")

    try:
        fields = json.loads(
            raw.decode("utf-8"), object_pairs_hook=take, parse_int=_integer, parse_constant=no_constant
        )
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{what} is not valid UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise CheckpointError(f"{what} is nested too deep") from error
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{what} is not a JSON object ({error})") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{what} is not a JSON object")
    return fields


def _integer(digits: str) -> int | float:
    # int() would raise on thousands of digits, without saying where they stand.
    return int(digits) if len(digits) <= _DIGITS and digits != "-0" else float(digits)


def _refuse_half_characters(fields: Fields, what: str) -> None:
    """An escape such as \\ud800 alone is no character, and cannot be written to any file."""
    for text in (text for pair in fields.items() for text in pair if isinstance(text, str)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CheckpointError(f"half of a surrogate pair in {what}: {shown_list([text])}") from error
