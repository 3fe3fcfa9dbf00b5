"""Which columns of a table are wanted, and under which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from alya_django.checkers import BadFile
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput

Columns = Mapping[str, str] | Mapping[str, Sequence[str]] | Sequence[str] | None
Make = Callable[[list[str]], dict[str, str]]


def without_header(columns: Columns) -> tuple[Make, int]:
    """Return what makes an input of a record's values, and how many these are, in a table without header."""
    if columns is None or isinstance(columns, str | Mapping):
        raise InvalidInput("must be a list of names where the file has no header.", field="columns")
    names = _names(columns)
    return _maker(names, {name: name for name in names}), len(names)


def by_kind(columns: Columns) -> dict[str, tuple[Make, int]]:
    """Return what makes an input of the values of each kind of record; nothing where all are of one kind."""
    if not isinstance(columns, Mapping) or any(isinstance(names, str) for names in columns.values()):
        return {}
    return {kind: without_header(names) for kind, names in columns.items()}


def below_header(record: list[str], columns: Columns) -> tuple[Make, int]:
    """
    Return what makes an input of the values below a header, and how many these are.

    Raises:
        BadFile: It has more than COLUMNS_MAX names, has one twice, or lacks one that is wanted.
        InvalidInput: The columns that are wanted are no names, or two are wanted under one.
    """
    if len(record) > settings.COLUMNS_MAX:
        raise BadFile(f"The header has {len(record)} columns, the limit is {settings.COLUMNS_MAX}.")
    header = [name.strip() for name in record]
    if twice := _twice(header):
        raise BadFile(f"The header has {twice[0]!r} twice.")
    wanted = _renaming(columns, header)
    present = set(header)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise BadFile(f"The header lacks {', '.join(map(repr, missing))}.")
    return _maker(header, wanted), len(header)


def _renaming(columns: Columns, header: list[str]) -> dict[str, str]:
    if columns is None:
        return {name: name for name in header}
    if not isinstance(columns, Mapping):
        return {name: name for name in _names(columns)}
    names = {name: wanted for name, wanted in columns.items() if isinstance(wanted, str)}
    if len(names) < len(columns):
        raise InvalidInput("must map each name to one where the file has a header.", field="columns")
    _names(list(names.values()))
    return names


def _names(columns: Any) -> list[str]:
    """Return names of columns; raise InvalidInput where one of them would be lost without a word."""
    names = [] if isinstance(columns, str) else list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"must be a list of names, not {columns!r}.", field="columns")
    if twice := _twice(names):
        raise InvalidInput(f"has {twice[0]!r} twice.", field="columns")
    return names


def _twice(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _maker(header: list[str], wanted: Mapping[str, str]) -> Make:
    """Return what picks the wanted columns out of a record, under the names they are wanted by."""
    names = list(wanted.values())
    if list(wanted) == header:
        return lambda record: dict(zip(names, record, strict=True))
    place_of = {name: place for place, name in enumerate(header)}
    places = [place_of[name] for name in wanted]
    if len(places) == 1:
        return lambda record: {names[0]: record[places[0]]}
    pick = itemgetter(*places)
    return lambda record: dict(zip(names, pick(record), strict=True))
