"""What the pages say: states, figures, messages, times and JSON in words that a person reads."""

from __future__ import annotations

import json
from datetime import datetime

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from alya_django.answers import ErrorMessage
from alya_django.models import Batch, BatchRow
from alya_django.status import Status
from alya_django.validation import JSON

JSON_BYTES_MAX = 2048
JSON_ROWS_MAX = 20
JSON_COLUMNS = 80
TEXT_CHARS_MAX = 120
NOTHING = "-"
NO_BREAK_SPACE = "\xa0"


def batch_state(batch: Batch) -> str:
    """Return a batch's state, and what keeps its rows back if something does."""
    state = batch.get_status_display()
    if batch.status == Status.WAIT:
        return _("%(state)s, until it is released") % {"state": state}
    if batch.is_held:
        return _("%(state)s, held") % {"state": state}
    return state


def row_state(row: BatchRow) -> str:
    """Return a row's state; one that was given back says so."""
    if row.status == Status.QUEUED and row.retry_at is not None:
        return _("requeued")
    return row.get_status_display()


def progress(batch: Batch) -> str:
    """Return how far a batch has come; of an unfinished one, by the sum of its progress slots."""
    nsuccess, nfailed, naborted = batch.counts(batch.progress.all()).values()
    ended = nsuccess + nfailed + naborted
    figures = [
        _("%(share)s %%") % {"share": _share(ended, batch.nrows)},
        ngettext("%(ended)s of %(nrows)s row", "%(ended)s of %(nrows)s rows", batch.nrows)
        % {"ended": number(ended), "nrows": number(batch.nrows)},
    ]
    if nfailed:
        figures.append(_("%(count)s failed") % {"count": number(nfailed)})
    if naborted:
        figures.append(_("%(count)s aborted") % {"count": number(naborted)})
    return ", ".join(figure.replace(" ", NO_BREAK_SPACE) for figure in figures)


def number(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return number_format(value, force_grouping=True)


def message(error: ErrorMessage) -> str:
    """Return a row's message: its errcode, and what it says of which field."""
    about = ": ".join(filter(None, [error.field, ", ".join(map(str, error.vals))]))
    return short(f"{error.errcode} ({about})" if about else error.errcode)


def short(text: str) -> str:
    """Return a text cut to what fits into a list."""
    return Truncator(text).chars(TEXT_CHARS_MAX)


def moment(value: datetime | None) -> str:
    """Return a time to the second: rows end thousands to the minute."""
    if value is None:
        return NOTHING
    return f"{localtime(value) if is_aware(value) else value:%Y-%m-%d %H:%M:%S}"


def json_text(value: JSON) -> str:
    """Return a JSON value as escaped, indented text, cut where it gets long."""
    if value is None:
        return NOTHING
    whole = _dump(value).encode()
    text = whole[:JSON_BYTES_MAX].decode(errors="ignore")
    area = _text_area(text)
    if len(whole) <= JSON_BYTES_MAX:
        return area
    cut = _("The first %(shown)s of %(size)s bytes.") % {
        "shown": number(JSON_BYTES_MAX),
        "size": number(len(whole)),
    }
    return format_html("{}<p>{}</p>", area, cut)


def _share(ended: int, nrows: int) -> str:
    # Rounded down: 100 % is said of what has ended, never of nearly all.
    return number_format(ended * 1000 // max(nrows, 1) / 10, decimal_pos=1)


def _text_area(text: str) -> str:
    # The one element that wraps a text of no spaces without a style of ours, which a strict policy may forbid.
    rows = sum(len(line) // JSON_COLUMNS + 1 for line in text.splitlines())
    return format_html(
        '<textarea readonly cols="{}" rows="{}" aria-label="JSON">{}</textarea>',
        JSON_COLUMNS,
        min(rows, JSON_ROWS_MAX),
        text,
    )


def _dump(value: JSON) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        # Indenting is done in Python, which gives up at a depth that can still be stored.
        return json.dumps(value, ensure_ascii=False)
