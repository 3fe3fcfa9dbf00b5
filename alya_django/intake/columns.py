"""Which columns of a table are wanted, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from alya_django.checkers import BadFile
from alya_django.exceptions import InvalidInput

Columns = Mapping[str, str] | Mapping[str, Sequence[str]] | Sequence[str] | None
Make = Callable[[list[str]], dict[str, str]]


def without_header(columns: Columns) -> tuple[Make, int]:
    """Return what makes an input of a record's values, and how many these are, in a table without header."""
    if columns is None or isinstance(columns, str | Mapping):
        raise InvalidInput("must be a list of names where the file has no header.", field="columns")
    names = list(columns)
    return _maker(names, {name: name for name in names}), len(names)


def by_kind(columns: Columns) -> dict[str, tuple[Make, int]]:
    """Return what makes an input of the values of each kind of record; nothing where all are of one kind."""
    if not isinstance(columns, Mapping) or any(isinstance(names, str) for names in columns.values()):
        return {}
    return {kind: without_header(list(names)) for kind, names in columns.items()}


def below_header(record: list[str], columns: Columns) -> tuple[Make, int]:
    """Return what makes an input of the values below a header, and how many these are."""
    header = [name.strip() for name in record]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise BadFile(f"The header has {min(twice)!r} twice.")
    wanted = _renaming(columns, header)
    missing = [name for name in wanted if name not in header]
    if missing:
        raise BadFile(f"The header lacks {', '.join(map(repr, missing))}.")
    return _maker(header, wanted), len(header)


def _renaming(columns: Columns, header: list[str]) -> dict[str, str]:
    if not isinstance(columns, Mapping):
        return {name: name for name in columns or header}
    names = {name: wanted for name, wanted in columns.items() if isinstance(wanted, str)}
    if len(names) < len(columns):
        raise InvalidInput("must map each name to one where the file has a header.", field="columns")
    return names


def _maker(header: list[str], wanted: Mapping[str, str]) -> Make:
    """Return what picks the wanted columns out of a record, under the names they are wanted by."""
    names = list(wanted.values())
    if list(wanted) == header:
        return lambda record: dict(zip(names, record, strict=True))
    places = [header.index(name) for name in wanted]
    if len(places) == 1:
        return lambda record: {names[0]: record[places[0]]}
    pick = itemgetter(*places)
    return lambda record: dict(zip(names, pick(record), strict=True))
