from __future__ import annotations

import datetime
import decimal
import enum
import itertools
import json
import math
import uuid
from typing import Any

import pytest

from alya_django import InvalidInput
from alya_django.validation import (
    LINE_MAX,
    TEXT_MAX,
    check_id,
    check_id_prefix,
    check_line,
    check_text,
    encode_json,
    encode_object,
    fold_name,
)

pytestmark = pytest.mark.sqlite


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in itertools.repeat(None, depth):
        value = [value]
    return value


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


class CheckIdPrefixTests:
    @pytest.mark.parametrize(
        ("given", "digits"),
        [
            ("3f2a", "3f2a"),
            (" 3F2A1b7c-00", "3f2a1b7c00"),
            ("3f2a1b7c-0011-4233-8455-66778899aabb", "3f2a1b7c00114233845566778899aabb"),
        ],
    )
    def test_returns_the_digits(self, given, digits):
        """With or without dashes, in either case."""
        assert check_id_prefix(given) == digits

    @pytest.mark.parametrize("given", ["", "3f2", "3f2g", "0" * 33, "٣٣٣٣"])
    def test_refuses_what_no_id_begins_with(self, given):
        """Three digits are too few to mean one batch."""
        with pytest.raises(InvalidInput) as caught:
            check_id_prefix(given)
        assert str(caught.value) == f"id: {given!r} is neither an id nor the first 4 digits of one or more."


class FoldNameTests:
    @pytest.mark.rule("SUB-3")
    @pytest.mark.parametrize(
        ("given", "folded"),
        [("bank", "bank"), ("Bank", "bank"), ("T.2_x-Y", "t.2_x-y"), ("_hidden", "_hidden"), ("9", "9")],
    )
    def test_folds_to_lower_case(self, given, folded):
        """A name may be given in any case and is one in lower case."""
        assert fold_name(given, "op") == folded

    def test_accepts_255_characters(self):
        """A name has at most 255 characters."""
        assert fold_name("A" * TEXT_MAX, "app") == "a" * TEXT_MAX

    def test_refuses_256_characters(self):
        """A longer name is refused with its length."""
        with pytest.raises(InvalidInput) as caught:
            fold_name("a" * 256, "app")
        assert str(caught.value) == "app: has 256 characters, the limit is 255."
        assert (caught.value.field, caught.value.line) == ("app", None)

    @pytest.mark.parametrize(
        "name", ["", " ", "a b", "a/b", ".a", "-a", "..", "flüge", "a\n", "a\0", "\ud800", "İ", "a:b", "a,b"]
    )
    def test_refuses_other_characters(self, name):
        """A name that is empty, begins with a dot or a dash or has another character is refused."""
        with pytest.raises(InvalidInput) as caught:
            fold_name(name, "op")
        assert str(caught.value) == (
            f"op: {name!r} is no name: it takes letters a-z, digits, '_', '.' and '-', the last two not in front."
        )
        assert caught.value.field == "op"

    @pytest.mark.parametrize(
        ("value", "type_name"), [(None, "NoneType"), (b"bank", "bytes"), (7, "int"), (["bank"], "list")]
    )
    def test_refuses_what_is_no_string(self, value, type_name):
        """A name of another type is refused with that type."""
        with pytest.raises(InvalidInput) as caught:
            fold_name(value, "app")
        assert str(caught.value) == f"app: must be a string, not {type_name}."


class CheckTextTests:
    @pytest.mark.parametrize("text", ["", "x" * TEXT_MAX, "Späte Flüge 2013.csv", "日本語", "a\nb", "✈️" * 100])
    def test_accepts_any_text_up_to_255_characters(self, text):
        """A free text holds whatever PostgreSQL can store."""
        assert check_text(text, "input_file") == text

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x" * 256, "input_file: has 256 characters, the limit is 255."),
            ("a\0b", "input_file: has a NUL character."),
            ("a\udfffb", "input_file: has a lone surrogate."),
            (None, "input_file: must be a string, not NoneType."),
            (b"a", "input_file: must be a string, not bytes."),
        ],
    )
    def test_refuses_what_cannot_be_stored(self, text, message):
        """A text that is too long, has a NUL or a lone surrogate, or is none, is refused."""
        with pytest.raises(InvalidInput) as caught:
            check_text(text, "input_file")
        assert str(caught.value) == message
        assert caught.value.field == "input_file"


class CheckIdTests:
    @pytest.mark.rule("API-1")
    def test_returns_a_uuid_from_a_uuid_or_its_text(self):
        """An id is given as a UUID or as its text, in either case, with or without hyphens."""
        batch_id = uuid.uuid4()
        for given in (batch_id, str(batch_id), str(batch_id).upper(), batch_id.hex):
            assert check_id(given) == batch_id

    @pytest.mark.rule("API-1")
    @pytest.mark.parametrize("value", ["", "17", "x" * 36, 17, None, b"0" * 32, "0" * 31, [], 1.5, {}, "\0" * 32])
    def test_refuses_what_is_no_uuid(self, value):
        """Anything else is malformed, whatever its type."""
        with pytest.raises(InvalidInput) as caught:
            check_id(value)
        assert str(caught.value) == f"id: {value!r} is no UUID."
        assert caught.value.field == "id"


class CheckLineTests:
    @pytest.mark.rule("SUB-6")
    @pytest.mark.parametrize("line", [1, 3269, LINE_MAX])
    def test_accepts_what_the_column_holds(self, line):
        """A line is a whole number from 1 to the largest the database stores."""
        assert check_line(line) == line

    @pytest.mark.rule("SUB-6")
    @pytest.mark.parametrize("line", [0, -1, LINE_MAX + 1, -(10**30), 10**30])
    def test_refuses_a_number_out_of_range(self, line):
        """A number out of range is named."""
        with pytest.raises(InvalidInput) as caught:
            check_line(line)
        assert str(caught.value) == f"line {line}: a line is a number from 1 to 2147483647."
        assert caught.value.line == line

    @pytest.mark.rule("SUB-6")
    @pytest.mark.parametrize("line", [True, False, 1.0, "1", None, decimal.Decimal(1), math.nan, [1]])
    def test_refuses_what_is_no_whole_number(self, line):
        """A bool, a float or a text is no line, even where it equals one."""
        with pytest.raises(InvalidInput) as caught:
            check_line(line)
        assert str(caught.value) == f"a line is a whole number, not {line!r}."


class EncodeJsonTests:
    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            -(2**70),
            10**4000,
            1.5,
            1.7976931348623157e308,
            "",
            "Späte ✈️ 日本語",
            'quote " backslash \\ tab \t newline \n return \r bell \a delete \x7f',
            "\\N",
            "\\.",
            "\\u0000",
            "\\\\u0000",
            "\u2028",
            [],
            {},
            [1, [2, {"a": None}]],
            {"ä ö": {"": [True, False]}},
        ],
    )
    def test_keeps_what_json_can_hold(self, value):
        """Every JSON value survives, among them texts that look like escapes and numbers of any size."""
        assert json.loads(encode_json(value, "input")) == value

    def test_turns_tuples_to_arrays_and_plain_keys_to_texts(self):
        """What Python's encoder takes, Alya takes: tuples, and keys that are numbers, booleans or null."""
        assert encode_json({2: (2, 3), None: 4, True: 5, 1.5: 6}, "input") == '{"2":[2,3],"null":4,"true":5,"1.5":6}'

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize(
        ("value", "field", "fault"),
        [
            (math.nan, "input", "NaN"),
            ({"delay": math.nan}, "input.delay", "NaN"),
            ([1, -math.inf], "input[1]", "Infinity"),
            ({"a": [{"b": math.inf}]}, "input.a[0].b", "Infinity"),
            ("a\0b", "input", "a NUL character"),
            ("\\\0", "input", "a NUL character"),
            ({"a": ["x", "\0"]}, "input.a[1]", "a NUL character"),
            ({"a\0": 1}, "input", "a NUL character in a key"),
            ("\ud800", "input", "a lone surrogate"),
            ({"a": "x\udfff"}, "input.a", "a lone surrogate"),
            ({"b": {"\ud800": 1}}, "input.b", "a lone surrogate in a key"),
            ({"amount": decimal.Decimal("1.10")}, "input.amount", "a Decimal (give amounts as strings)"),
            (b"raw", "input", "a value of type bytes"),
            ({"tags": {1, 2}}, "input.tags", "a value of type set"),
            ([datetime.datetime(2013, 1, 1)], "input[0]", "a value of type datetime"),
            (datetime.date(2013, 1, 1), "input", "a value of type date"),
            (uuid.UUID(int=0), "input", "a value of type UUID"),
            (enum.Enum("Colour", "RED").RED, "input", "a value of type Colour"),
            (object(), "input", "a value of type object"),
            (iter([1]), "input", "a value of type list_iterator"),
            ({(1, 2): 3}, "input", "the key (1, 2)"),
            ({b"k": 3}, "input", "the key b'k'"),
            ({math.nan: 3}, "input", "the key nan"),
        ],
    )
    def test_names_the_first_part_that_json_cannot_hold(self, value, field, fault):
        """The error says where in the value the fault is, and what it is."""
        with pytest.raises(InvalidInput) as caught:
            encode_json(value, "input")
        assert str(caught.value) == f"{field}: {fault} cannot be stored as JSON."
        assert (caught.value.field, caught.value.line) == (field, None)

    @pytest.mark.rule("SUB-7")
    def test_names_the_line(self):
        """Of a row's value the error carries the line too."""
        with pytest.raises(InvalidInput) as caught:
            encode_json({"a": {1}}, "input", line=3269)
        assert str(caught.value) == "line 3269: input.a: a value of type set cannot be stored as JSON."
        assert (caught.value.line, caught.value.field) == (3269, "input.a")

    @pytest.mark.rule("SUB-7")
    def test_refuses_a_value_that_contains_itself(self):
        """A circular value ends in an error, not in a loop, and the error says so in plain words."""
        with pytest.raises(InvalidInput) as caught:
            encode_json(circular(), "input", line=1)
        assert str(caught.value) == "line 1: input: a value that contains itself cannot be stored as JSON."

    @pytest.mark.rule("SUB-7")
    def test_refuses_a_value_that_is_too_deep(self):
        """A value nested beyond what can be read back is refused in plain words."""
        with pytest.raises(InvalidInput) as caught:
            encode_json(nested(100_000), "input", line=1)
        assert str(caught.value) == "line 1: input: a value nested more than 500 deep cannot be stored as JSON."

    @pytest.mark.rule("SUB-7")
    def test_refuses_a_value_that_is_too_long(self, monkeypatch):
        """A text longer than PostgreSQL can hold is refused before it gets there."""
        monkeypatch.setattr("alya_django.validation.JSON_CHARS_MAX", 100)
        assert len(encode_json("x" * 98, "input")) == 100
        with pytest.raises(InvalidInput) as caught:
            encode_json("x" * 99, "input", line=3)
        assert str(caught.value) == "line 3: input: has 101 characters as JSON, the limit is 100."

    @pytest.mark.rule("SUB-7")
    def test_passes_over_what_is_right_on_the_way_to_the_fault(self):
        """Nulls, numbers, booleans and texts before the fault are no faults."""
        with pytest.raises(InvalidInput) as caught:
            encode_json([None, 1, 1.5, True, "x", {"y": b""}], "input")
        assert str(caught.value) == "input[5].y: a value of type bytes cannot be stored as JSON."

    @pytest.mark.rule("SUB-7")
    def test_refuses_a_number_with_too_many_digits(self):
        """A number that Python itself will not write out is refused, and its place named."""
        with pytest.raises(InvalidInput) as caught:
            encode_json({"n": [10**5000]}, "input", line=1)
        assert str(caught.value) == "line 1: input.n[0]: a number with too many digits cannot be stored as JSON."
        assert caught.value.field == "input.n[0]"


class EncodeObjectTests:
    def test_takes_none_for_an_empty_object(self):
        """No context is an empty one."""
        assert encode_object(None, "context") == "{}"

    def test_encodes_an_object(self):
        """An object may hold any JSON."""
        assert encode_object({"a": [1, None]}, "context") == '{"a":[1,null]}'

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize(
        ("value", "type_name"),
        [([], "list"), ("", "str"), ("{}", "str"), (0, "int"), (False, "bool"), ([("a", 1)], "list")],
    )
    def test_refuses_what_is_no_object(self, value, type_name):
        """Anything else is refused, also what counts as false."""
        with pytest.raises(InvalidInput) as caught:
            encode_object(value, "context")
        assert str(caught.value) == f"context: must be a JSON object, not {type_name}."
        assert caught.value.field == "context"

    @pytest.mark.rule("SUB-7")
    def test_refuses_an_object_that_json_cannot_hold(self):
        """The fault is named as a path below the object."""
        with pytest.raises(InvalidInput) as caught:
            encode_object({"rate": math.nan}, "context")
        assert str(caught.value) == "context.rate: NaN cannot be stored as JSON."
