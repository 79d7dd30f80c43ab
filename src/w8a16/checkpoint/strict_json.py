"""JSON as the safetensors format means it: one object, no key twice, no NaN, numbers of sane length."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from w8a16.checkpoint.printable import shown_list
from w8a16.errors import CheckpointError

_DIGITS = 20  # of 2**64


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """Parse UTF-8 bytes that hold one JSON object; `what` names them in messages: "the header".

    Integers of more than 20 digits, and "-0", come as text: a reader refuses them where they stand.

    Raises:
        CheckpointError: not UTF-8, not an object, a key twice at any level, NaN or Infinity, nested
            too deep.
    """

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = sorted(name for name, count in counts.items() if count > 1)
            raise CheckpointError(f"duplicate key in {what}: {shown_list(twice)}")
        return fields

    def no_constant(name: str) -> NoReturn:
        raise CheckpointError(f"{what} is not a JSON object ({name} is no JSON value)")

    try:
        fields = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=no_duplicates,
            parse_int=_integer,
            parse_constant=no_constant,
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


def _integer(digits: str) -> int | str:
    # int() would raise on thousands of digits, without saying where they stand; -0 is a float in JSON.
    return int(digits) if len(digits) <= _DIGITS and digits != "-0" else digits
