"""Which columns of a table are wanted, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from alya_django.checkers import BadFile
from alya_django.exceptions import InvalidInput

Columns = Mapping[str, str] | Sequence[str] | None
Make = Callable[[list[str]], dict[str, str]]


def without_header(columns: Columns) -> tuple[Make, int]:
    """Return what makes an input of a record's values, and how many these are, in a table without header."""
    if columns is None or isinstance(columns, str | Mapping):
        raise InvalidInput("must be a list of names where the file has no header.", field="columns")
    names = list(columns)
    return _maker(names, {name: name for name in names}), len(names)


def below_header(record: list[str], columns: Columns) -> tuple[Make, int]:
    """Return what makes an input of the values below a header, and how many these are."""
    header = [name.strip() for name in record]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise BadFile(f"The header has {min(twice)!r} twice.")
    wanted = columns if isinstance(columns, Mapping) else {name: name for name in columns or header}
    missing = [name for name in wanted if name not in header]
    if missing:
        raise BadFile(f"The header lacks {', '.join(map(repr, missing))}.")
    return _maker(header, wanted), len(header)


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
