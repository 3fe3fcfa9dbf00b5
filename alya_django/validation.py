"""Which values can be stored: names, ids, texts and JSON. It knows no batch and touches no database."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from alya_django.exceptions import InvalidInput

JSON = Any
"""What JSON can hold and PostgreSQL can store: objects, arrays, texts, finite numbers, booleans, null."""

ID_DIGITS = range(4, 33)
NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
HEX = re.compile(r"[0-9a-f]+")
OWN_APP = "alya"
"""The app of the slow queries that Alya itself submits and answers; no project registers anything for it."""
TEXT_MAX = 255
LINE_MAX = 2**31 - 1
# PostgreSQL holds 268 435 455 bytes in one JSON string, and a character may take four.
JSON_CHARS_MAX = 60_000_000
# Python reads and writes about twice as deep before it gives up.
DEPTH_MAX = 500

# A NUL as the encoder writes it, unless the backslash is itself escaped.
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class EncodedJSON(str):
    """A value that ``encode_json`` has made text of already."""

    __slots__ = ()


def fold_name(value: str, field: str) -> str:
    """Return an app's or op's name in lower case; raise InvalidInput if it can be no name."""
    if not isinstance(value, str):
        raise InvalidInput(f"must be a string, not {type(value).__name__}.", field=field)
    name = value.lower()
    if len(name) > TEXT_MAX:
        raise InvalidInput(f"has {len(name)} characters, the limit is {TEXT_MAX}.", field=field)
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{value!r} is no name: it takes letters a-z, digits, '_', '.' and '-', the last two not in front.",
            field=field,
        )
    return name


def fold_app(app: str) -> str:
    """Return the name of an app that a project may register something for, in lower case; else raise InvalidInput."""
    name = fold_name(app, "app")
    if name == OWN_APP:
        raise InvalidInput(f"{app!r} is the app of Alya's own slow queries; give yours another name.", field="app")
    return name


def check_text(value: str, field: str) -> str:
    """Return a free text of at most 255 characters; raise InvalidInput if it cannot be stored."""
    if not isinstance(value, str):
        raise InvalidInput(f"must be a string, not {type(value).__name__}.", field=field)
    if len(value) > TEXT_MAX:
        raise InvalidInput(f"has {len(value)} characters, the limit is {TEXT_MAX}.", field=field)
    if fault := _text_fault(value):
        raise InvalidInput(f"has {fault}.", field=field)
    return value


def make_storable(text: str, chars_max: int) -> str:
    """Return a text from elsewhere as far as it can be stored: cut, and with what no database holds written out."""
    return text[:chars_max].encode(errors="backslashreplace").decode().replace("\0", "\\0")[:chars_max]


def check_id(value: UUID | str) -> UUID:
    """Return the id of a batch; raise InvalidInput if it is malformed."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(f"{value!r} is no UUID.", field="id") from None


def check_id_prefix(text: str) -> str:
    """Return the hexadecimal digits that an id begins with, or all of them; raise InvalidInput if it is neither."""
    digits = text.strip().lower().replace("-", "")
    if len(digits) not in ID_DIGITS or not HEX.fullmatch(digits):
        raise InvalidInput(
            f"{text!r} is neither an id nor the first {ID_DIGITS.start} digits of one or more.", field="id"
        )
    return digits


def check_line(value: int) -> int:
    """Return a row's number; raise InvalidInput if no row can have it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"a line is a whole number, not {value!r}.")
    if not 1 <= value <= LINE_MAX:
        raise InvalidInput(f"a line is a number from 1 to {LINE_MAX}.", line=value)
    return value


def encode_json(value: JSON, field: str, *, line: int | None = None) -> str:
    """Return a value as JSON text that any worker can read back; raise InvalidInput naming what cannot be stored."""
    try:
        text = _encode(value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _json_fault(value, field, line, error) from None
    if len(text) > JSON_CHARS_MAX:
        raise InvalidInput(
            f"has {len(text)} characters as JSON, the limit is {JSON_CHARS_MAX}.", line=line, field=field
        )
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise _json_fault(value, field, line)
    # Few texts are long enough to be nested so deep, and few of these have as many brackets.
    if len(text) > 2 * DEPTH_MAX and text.count("[") + text.count("{") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        raise _json_fault(value, field, line, RecursionError())
    return text


def encode_object(value: JSON, field: str) -> str:
    """Return a JSON object as text, ``{}`` for None; raise InvalidInput for anything else."""
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise InvalidInput(f"must be a JSON object, not {type(value).__name__}.", field=field)
    return encode_json(value, field)


def _depth(text: str) -> int:
    """Return how deep the arrays and objects of a JSON text are nested."""
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _json_fault(value: JSON, field: str, line: int | None, error: Exception | None = None) -> InvalidInput:
    """Return the error that names the first part of a value that JSON cannot hold."""
    try:
        path, fault = next(_faults(value, field), (field, ""))
    except RecursionError:
        path, fault = field, "a value that contains itself" if isinstance(error, ValueError) else ""
    fault = fault or (
        f"a value nested more than {DEPTH_MAX} deep" if isinstance(error, RecursionError) else f"{error}"
    )
    return InvalidInput(f"{fault} cannot be stored as JSON.", line=line, field=path)


def _faults(value: JSON, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            if fault := _key_fault(key):
                yield path, fault
            yield from _faults(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _faults(part, f"{path}[{index}]")
    elif fault := _scalar_fault(value):
        yield path, fault


def _key_fault(key: Any) -> str:
    if isinstance(key, str):
        return (fault := _text_fault(key)) and f"{fault} in a key"
    is_written = key is None or isinstance(key, bool | int) or (isinstance(key, float) and math.isfinite(key))
    return "" if is_written else f"the key {key!r}"


def _scalar_fault(value: JSON) -> str:
    if isinstance(value, str):
        return _text_fault(value)
    if isinstance(value, float):
        return "" if math.isfinite(value) else {"nan": "NaN"}.get(str(value), "Infinity")
    if isinstance(value, int):
        return _number_fault(value)
    if value is None:
        return ""
    if type(value).__name__ == "Decimal":
        return "a Decimal (give amounts as strings)"
    return f"a value of type {type(value).__name__}"


def _number_fault(value: int) -> str:
    try:
        str(value)
    except ValueError:
        return "a number with too many digits"
    return ""


def _text_fault(text: str) -> str:
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate"
    return ""
