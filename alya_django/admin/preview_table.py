"""The first rows of a file as a table: masked as everywhere, and cut where they get long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest
from django.utils.translation import gettext as _

from alya_django.admin import masking
from alya_django.admin.words import TEXT_BYTES_MAX
from alya_django.models import Batch
from alya_django.validation import JSON

COLUMNS_MAX = 40
CELL_BYTES_MIN = 50
CUT = "…"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with their lines; a column for each field, or one for all where the inputs are no objects alike."""

    columns: list[str]
    rows: list[tuple[int, list[str]]]


def table(request: HttpRequest, batch: Batch, rows: Sequence[tuple[int, JSON]]) -> Table:
    """Return rows as a person may see them, ``batch`` being the one that they would become."""
    shown = [(line, masking.shown(request, batch, "input", input)) for line, input in rows]
    columns = _columns([input for _line, input in shown])
    if not columns:
        return Table([_("input")], [(line, [_cut(_dump(input), TEXT_BYTES_MAX)]) for line, input in shown])
    bytes_max = max(TEXT_BYTES_MAX // len(columns), CELL_BYTES_MIN)
    return Table(
        columns,
        [
            (line, [_cut(_text(input, name), bytes_max) for name in columns])
            for line, input in shown
            if isinstance(input, dict)
        ],
    )


def _columns(inputs: Sequence[JSON]) -> list[str]:
    """Return the fields of objects, in their order; none where there are other things, or too many fields."""
    names: dict[str, None] = {}
    for input in inputs:
        if not isinstance(input, dict):
            return []
        names.update(dict.fromkeys(input))
    return list(names) if len(names) <= COLUMNS_MAX else []


def _text(input: dict[str, JSON], name: str) -> str:
    if name not in input:
        return ""
    value = input[name]
    return value if isinstance(value, str) else _dump(value)


def _dump(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, bytes_max: int) -> str:
    whole = text.encode()
    return text if len(whole) <= bytes_max else f"{whole[:bytes_max].decode(errors='ignore')}{CUT}"
