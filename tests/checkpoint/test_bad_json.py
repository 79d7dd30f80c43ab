"""The JSON reader by itself: what it reads, and that it refuses before it builds."""

import json

import pytest

from support.files import not_hanging
from w8a16.checkpoint.container.strict_json import JsonCursor
from w8a16.errors import CheckpointError


def cursor(text):
    return JsonCursor(text.encode("utf-8", "surrogatepass"), "the text")


def strings(text):
    """A map of strings."""
    reader = cursor(text)
    fields = {name: reader.string() for name in reader.members()}
    reader.end()
    return fields


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"a": "b"},
        {"": ""},
        {"é\n": "\u2028", '"\\': "\0"},
        {f"k{number}": "v" * number for number in range(50)},
    ],
)
@pytest.mark.parametrize("options", [{}, {"indent": 3}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_what_json_writes(fields, options):
    text = json.dumps(fields, **options)
    assert strings(text) == fields
    assert strings(f" \t\r\n{text}\n ") == fields


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "expected { at character 0"),
        ("[]", "expected { at character 0"),
        ("{", 'expected " at character 1'),
        ('{"a"', "expected : at character 4"),
        ('{"a":', 'expected " at character 5'),
        ('{"a":1}', 'expected " at character 5'),
        ('{"a":"b"', "expected , at character 8"),
        ('{"a":"b",}', 'expected " at character 9'),
        ('{"a":"b"}}', "expected its end at character 9"),
        ('{"a":"b', "Unterminated string starting at: line 1 column 6 (char 5)"),
        ('{"a":"\\x"}', "Invalid \\escape: line 1 column 7 (char 6)"),
        ('{"a":"\t"}', "Invalid control character at: line 1 column 7 (char 6)"),
        ('{\xa0"a":"b"}', 'expected " at character 1'),
    ],
)
def test_what_is_no_map_of_strings(text, problem):
    with pytest.raises(CheckpointError) as caught:
        strings(text)
    assert str(caught.value) == f"the text is not a JSON object ({problem})"


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"a":"", "b":"", "a":""}', "duplicate key in the text: a"),
        ('{"a": "\\ud800"}', "half of a surrogate pair in the text: \\ud800"),
        ('{"\\udc00\\ud800": ""}', "half of a surrogate pair in the text: \\udc00\\ud800"),
        ('{"\ud800": ""}', "the text is not valid UTF-8 (invalid continuation byte)"),
    ],
)
def test_what_json_itself_would_read(text, problem):
    with pytest.raises(CheckpointError) as caught:
        strings(text)
    assert str(caught.value) == problem
    assert strings('{"\\ud83d\\ude00": ""}') == {"😀": ""}


def test_flat_objects():
    assert cursor(' {"a": [1, "b"], "c": 2.5}').flat_object() == {"a": [1, "b"], "c": 2.5}
    for text in ("", "[]", "1", '"a"', "null", '{"a": {}}', '{"a": "' + "b" * 10_000 + '"}', '{"a": 1'):
        assert cursor(text).flat_object() is None


@pytest.mark.parametrize("digits", ["-0", "1" + "0" * 20, "9" * 5000])
def test_integers_that_no_reader_wants_are_floats(digits):
    fields = cursor(f'{{"a": {digits}, "b": {2**64}}}').flat_object()
    assert fields["b"] == 2**64
    assert type(fields["a"]) is float


@pytest.mark.parametrize(
    "value", ["null", "-1.5e3", '"\\u0041"', "[]", "{}", '{"a": {"b": [{}]}}', json.dumps(["x" * 900_000])]
)
def test_values_that_are_skipped(value):
    reader = cursor(f'{{"a": {value} , "b": "c"}}')
    found = {}
    for name in reader.members():
        found[name] = reader.skip() if name == "a" else reader.string()
    reader.end()
    assert found == {"a": None, "b": "c"}


def test_very_many_small_values_are_skipped():
    """Each costs its own length, not the longest that there may be."""
    text = "{" + ",".join(f'"k{number}":[{number}]' for number in range(200_000)) + "}"
    reader = cursor(text)
    with not_hanging(60):
        for _ in reader.members():
            reader.skip()
    reader.end()


@pytest.mark.parametrize(
    "value, problem",
    [
        ("NaN", "not a JSON object (NaN is no JSON value)"),
        ('[{"a": -Infinity}]', "not a JSON object (-Infinity is no JSON value)"),
        ("[" * 200_000, "nested too deep"),
        ("[" + "0," * 500_000 + "0]", "not a JSON object (Expecting"),
        ("", "not a JSON object (Expecting value"),
    ],
    ids=range(5),
)
def test_values_that_are_not_skipped(value, problem):
    with pytest.raises(CheckpointError) as caught:
        cursor(value).skip()
    assert str(caught.value).startswith(f"the text is {problem}")
