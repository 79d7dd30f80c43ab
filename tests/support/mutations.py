"""Damaged safetensors files, made from good ones by small random changes: most are wrong, some are not."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from random import Random

BITS = {
    name: bits
    for bits, names in {
        4: "F4",
        6: "F6_E2M3 F6_E3M2",
        8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "U16 I16 F16 BF16",
        32: "U32 I32 F32",
        64: "U64 I64 F64 C64",
    }.items()
    for name in names.split()
}
"""Every dtype of the safetensors library 0.8, with its bits."""

NAMES = ["a", "b", "layer.0.weight", "é", "😀", "x" * 40, "a\\b", 'q"q', "line\n", "\0", "__metadata", ""]
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\[\]{}:,]|\s+|.', re.S)
DTYPE = re.compile(r'(?<=")(?:' + "|".join(BITS) + r')(?=")')
NUMBER = re.compile(r"[0-9]+")
ODD_NUMBERS = [
    *(
        "-0",
        "00",
        "01",
        "0.0",
        "-1",
        "1.0",
        "1e0",
        "0e1",
        "1E400",
        "-1e-400",
        "+1",
        "0x1",
        ".5",
        "1.",
        "9" * 30,
    ),
    *(str(2**power + change) for power in (8, 31, 32, 40, 53, 62, 63, 64) for change in (-1, 0, 1)),
    *("٣", "1_0", "²"),
]
ODD_TOKENS = [
    *(
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "null",
        "true",
        "NaN",
        "-Infinity",
        "[]",
        "{}",
        '""',
        "[[]]",
        "//",
        "/**/",
    ),
    *('"dtype"', '"shape"', '"data_offsets"', '"__metadata__"', '"F32"', '"f32"', '"U8"', "'a'", '"a"'),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x"', '"\\u00"', '"\\/"', '"\t"'),
    *(" ", "\n", "\r\t", "\f", "\v", "\0", "\xa0", "\u2003", "\ufeff", "\x7f", " \xa0", "\n\f"),
]


def good_file(random: Random) -> tuple[str, bytes]:
    """The header's text, and the data, of a file without a fault (but for names that we alone refuse)."""
    fields: dict[str, object] = {}
    if random.random() < 0.4:
        fields["__metadata__"] = {
            random.choice(NAMES): random.choice(NAMES) for _ in range(random.randrange(3))
        }
    offset = 0
    for name in random.sample(NAMES, random.randrange(5)):
        dtype = random.choice(list(BITS))
        shape = [random.choice((0, 1, 2, 3, 4, 8)) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 8, 9)))]
        if BITS[dtype] < 8:
            shape = [8, *shape[:3]]
        count = BITS[dtype]
        for size in shape:
            count *= size
        if count > 1 << 16:
            shape, count = [1, 4], BITS[dtype] * 4
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + count // 8]}
        offset += count // 8
    items = list(fields.items())
    random.shuffle(items)
    text = json.dumps(dict(items), ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 1)))
    return text, random.randbytes(offset)


def damaged_file(random: Random) -> bytes:
    """A whole file with one to three faults; now and then none at all."""
    text, data = good_file(random)
    changes = random.choices(_TEXT_CHANGES, k=random.choice((0, 1, 1, 1, 2, 3)))
    for change in changes:
        text = change(random, text)
    head = text.encode("utf-8", "surrogatepass")
    if random.random() < 0.15:
        head = _change_bytes(random, head)
    length = len(head)
    if random.random() < 0.1:
        length = max(
            0, random.choice((length - 1, length + 1, 0, 2**63, 2**64 - 1, length + len(data), 10**8 + 1))
        )
    if random.random() < 0.1:
        data = random.choice((data[:-1], data + b"\0", b"", data[: len(data) // 2], data + bytes(8)))
    content = struct.pack("<Q", length) + head + data
    return content[: random.randrange(10)] if random.random() < 0.005 else content


def _change_bytes(random: Random, head: bytes) -> bytes:
    content = bytearray(head)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(content) + 1)
        kind = random.randrange(4)
        if kind == 0:
            content[place : place + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            content[place:place] = random.randbytes(random.choice((1, 1, 3)))
        elif kind == 2:
            del content[place : place + random.choice((1, 1, 2, 10))]
        else:
            content[place:place] = content[place : place + random.randrange(1, 20)]
    return bytes(content)


def _change_token(random: Random, text: str) -> str:
    tokens = TOKEN.findall(text)
    if not tokens:
        return text
    place, other = random.randrange(len(tokens)), random.randrange(len(tokens))
    kind = random.randrange(5)
    if kind == 0:
        tokens[place] = random.choice(ODD_TOKENS)
    elif kind == 1:
        tokens.insert(place, random.choice(ODD_TOKENS))
    elif kind == 2:
        del tokens[place]
    elif kind == 3:
        tokens[place], tokens[other] = tokens[other], tokens[place]
    else:
        first, last = sorted((place, other))
        tokens[last:last] = tokens[first:last]
    return "".join(tokens)


def _change_number(random: Random, text: str) -> str:
    places = list(NUMBER.finditer(text))
    if not places:
        return text
    place = random.choice(places)
    value = int(place.group())
    near = [str(max(0, value + change)) for change in (-8, -4, -1, 1, 4, 8)]
    # What a lax parser takes for the same number.
    same = [f"{value}.0", f"{value}e0", f"0{value}", f"-{value}", f'"{value}"', str(bool(value)).lower()]
    new = random.choice([*near, *near, *same, *ODD_NUMBERS, str(value * 2), str(value // 2)])
    return text[: place.start()] + new + text[place.end() :]


def _change_dtype(random: Random, text: str) -> str:
    places = list(DTYPE.finditer(text))
    if not places:
        return text
    place = random.choice(places)
    name, bits = place.group(), BITS[place.group()]
    like = [other for other in BITS if BITS[other] == bits]
    new = random.choice([*like, name.lower(), f"{name} ", name[:-1], f"{name}FN", "I4", "C128"])
    return text[: place.start()] + new + text[place.end() :]


def _insert_space(random: Random, text: str) -> str:
    """Between two tokens, where it is allowed."""
    tokens = TOKEN.findall(text)
    tokens.insert(random.randrange(len(tokens) + 1), random.choice((" ", "\n", "\t", "\r", "  ")))
    return "".join(tokens)


def _change_entry(random: Random, text: str) -> str:
    """Well-formed JSON with one wrong place reaches deeper than damaged text."""
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if not isinstance(fields, dict) or not fields:
        return text
    name, kind = random.choice(list(fields)), random.randrange(6)
    entry = fields[name]
    if kind == 0:
        fields[random.choice(NAMES)] = entry
    elif kind == 1:
        fields[name] = random.choice((None, [], {}, "F32", 1, True, [entry], {"a": entry}))
    elif kind == 2:
        del fields[name]
    elif isinstance(entry, dict) and entry:
        key = random.choice(list(entry))
        if kind == 3:
            del entry[key]
        elif kind == 4:
            entry[random.choice(("more", key.upper(), key))] = random.choice((1, "F32", [0, 0], [], None))
        else:
            entry[key] = random.choice(
                (None, True, 1, 1.5, "U8", "F4", [1], [0, 1], [True], [None], [[1]], {})
            )
    return json.dumps(fields)


def _repeat_entry(random: Random, text: str) -> str:
    """The same key twice: JSON allows it."""
    members = list(re.finditer(r'"[^"\\]*"\s*:\s*(\{[^{}]*\}|\[[^\[\]]*\]|"[^"\\]*")', text))
    if not members:
        return text
    member = random.choice(members)
    return f"{text[: member.end()]},{member.group()}{text[member.end() :]}"


def _swap_offsets(random: Random, text: str) -> str:
    """Another order of tensors, an overlap, or a hole."""
    places = list(re.finditer(r'"data_offsets":\s*(\[[^\]]*\])', text))
    if len(places) < 2:
        return text
    first, last = sorted(random.sample(places, 2), key=lambda place: place.start())
    middle = text[first.end(1) : last.start(1)]
    return f"{text[: first.start(1)]}{last.group(1)}{middle}{first.group(1)}{text[last.end(1) :]}"


_TEXT_CHANGES: list[Callable[[Random, str], str]] = [
    *(_change_token, _change_token, _change_number, _change_number, _change_number),
    *(_change_dtype, _change_entry, _change_entry, _insert_space, _repeat_entry, _swap_offsets),
]
