"""JSON read member by member, so that a hostile text costs no more memory than its length.

`json.loads` would first build all of it: three megabytes of `[[],[],[],...` become eighty. Here the
caller says at each place what it expects, and what is something else is refused unread. Strict: no key
twice, no NaN, no half of a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

from w8a16.checkpoint.container.printable import shown
from w8a16.errors import CheckpointError

_SPACES = (" ", "\t", "\n", "\r")
_SPACE = re.compile(r"[ \t\n\r]*")
_FLAT = re.compile(r"\{[^{}]{0,10000}\}")
_LENGTHS = (1_000, 30_000, 1_000_000)  # characters of a value of any kind
_DIGITS = 20  # of 2**64

Fields = dict[str, Any]


class JsonCursor:
    """A place in a JSON text, moved on by reading; `what` names the text in messages: "the header"."""

    def __init__(self, raw: bytes, what: str) -> None:
        try:
            self._text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{what} is not valid UTF-8 ({error.reason})") from error
        self._what = what
        self._at = 0
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=_integer, parse_constant=self._refuse_constant
        )

    def next(self) -> str:
        """The next character that is no space, or nothing at the end; it is not read."""
        character = self._text[self._at : self._at + 1]
        if character in _SPACES and (space := _SPACE.match(self._text, self._at)):
            self._at = space.end()
            character = self._text[self._at : self._at + 1]
        return character

    def members(self) -> Iterator[str]:
        """Read an object: yield each key, after which the caller reads the value.

        Raises:
            CheckpointError: not an object, or a key twice.
        """
        self._expect("{")
        if self.next() == "}":
            self._at += 1
            return
        names = set()
        while True:
            name = self.string()
            if name in names:
                raise CheckpointError(f"duplicate key in {self._what}: {shown(name)}")
            names.add(name)
            self._expect(":")
            yield name
            if self.next() == "}":
                self._at += 1
                return
            self._expect(",")

    def string(self) -> str:
        """Read a string."""
        if self.next() != '"':
            raise self._failure(f'expected " at character {self._at}')
        text: str = self._decode(self._text, self._at)
        if not text.isascii():
            self._refuse_half_characters(text)
        return text

    def flat_object(self) -> Fields | None:
        """Read an object that holds no other object and is not long; None where something else stands.

        Integers of more than 20 digits, and "-0", come as floats: the caller refuses them, naming the key.
        """
        if self.next() != "{" or not _FLAT.match(self._text, self._at):
            return None
        fields: Fields = self._decode(self._text, self._at)
        return fields

    def skip(self) -> None:
        """Read past a value of any kind, of a million characters at most."""
        self.next()
        start, longest = self._at, _LENGTHS[-1]
        for length in _LENGTHS:  # from the shortest: there may be very many small ones
            piece = self._text[start : start + length]
            try:
                self._decode(piece, 0)
            except CheckpointError:
                if len(piece) < length or length == longest:
                    raise
            else:
                break
        self._at += start

    def end(self) -> None:
        """Check that nothing follows."""
        if self.next():
            raise self._failure(f"expected its end at character {self._at}")

    def _decode(self, text: str, at: int) -> Any:
        try:
            value, self._at = self._decoder.raw_decode(text, at)
        except RecursionError as error:
            raise CheckpointError(f"{self._what} is nested too deep") from error
        except CheckpointError:
            raise
        except ValueError as error:
            raise self._failure(str(error)) from error
        return value

    def _expect(self, character: str) -> None:
        if self.next() != character:
            raise self._failure(f"expected {character} at character {self._at}")
        self._at += 1

    def _object(self, pairs: list[tuple[str, Any]]) -> Fields:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise CheckpointError(f"duplicate key in {self._what}: {shown(twice)}")
        return fields

    def _refuse_half_characters(self, text: str) -> None:
        """An escape such as \\ud800 alone is no character, and cannot be written to any file."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CheckpointError(f"half of a surrogate pair in {self._what}: {shown(text)}") from error

    def _refuse_constant(self, name: str) -> NoReturn:
        raise self._failure(f"{name} is no JSON value")

    def _failure(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self._what} is not a JSON object ({reason})")


def _integer(digits: str) -> int | float:
    # int() would raise on thousands of digits, without saying where they stand.
    return int(digits) if len(digits) <= _DIGITS and digits != "-0" else float(digits)
