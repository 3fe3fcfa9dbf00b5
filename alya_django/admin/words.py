"""What the pages say: states, figures, messages, times and JSON in words that a person reads."""

from __future__ import annotations

import json
from datetime import datetime
from math import floor

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from alya_django.answers import ErrorMessage
from alya_django.models import BatchRow
from alya_django.status import Status
from alya_django.validation import JSON

MINUTE, HOUR, DAY = 60, 3_600, 86_400
TEXT_BYTES_MAX = 2048
TEXT_ROWS_MAX = 20
TEXT_COLUMNS = 80
TEXT_CHARS_MAX = 120
NOTHING = "-"
OWN_MESSAGES = {
    (2, "configerror"): gettext_lazy("No worker had a processor for its app and op."),
    (5, "configerror"): gettext_lazy("The initializer of its app went on raising errors."),
    (10, "processing_error"): gettext_lazy("Its processor raised an error, or returned what cannot be stored."),
    (11, "processing_error"): gettext_lazy("Its worker died, as many times as a row is allowed."),
    (12, "processing_error"): gettext_lazy("It took longer than its time limit."),
}
ICONS = {
    "wait": "○",
    "queued": "◔",
    "requeued": "↻",
    "inprog": "▶",
    "success": "✓",
    "failed": "✕",
    "aborted": "⊘",
    "held": "‖",
    "stalled": "!",
    "working": "▶",
    "idle": "○",
    "stopping": "◼",
    "lost": "!",
}
NO_BREAK_SPACE = "\xa0"


def row_state(row: BatchRow) -> str:
    """Return a row's state; one that was given back says so."""
    if row.status == Status.QUEUED and row.retry_at is not None:
        return _("requeued")
    return row.get_status_display()


def row_badge(row: BatchRow) -> str:
    """Return a row's state as a sign and its word."""
    look = "requeued" if row.status == Status.QUEUED and row.retry_at is not None else row.status
    return badge(look, ICONS[look], row_state(row))


def status_badge(status: Status) -> str:
    """Return a state that has ended or not as a sign and its word."""
    return badge(status.value, ICONS[status.value], str(status.label))


def badge(look: str, icon: str, text: str) -> str:
    """Return a state as a sign, which style sheets colour by its look, and a word, which says it all."""
    return format_html(
        '<span class="alya-state" data-alya-look="{}">'
        '<span class="alya-icon" aria-hidden="true">{}</span>\xa0{}</span>',
        look,
        icon,
        text,
    )


def number(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return number_format(value, force_grouping=True)


def times(count: int) -> str:
    """Say how often something was."""
    return ngettext("%(count)s time", "%(count)s times", count) % {"count": number(count)}


def plainly(error: ErrorMessage) -> str:
    """Say what a message of Alya's own means; of others the project knows, and nothing is said."""
    return str(OWN_MESSAGES.get((error.msgid, error.errcode), ""))


def share(ended: int, nrows: int) -> str:
    """Return how much of something has ended."""
    # Rounded down: 100 % is said of what has ended, never of nearly all.
    percent = number_format(ended * 1000 // max(nrows, 1) / 10, decimal_pos=1)
    return unbroken(_("%(share)s %%") % {"share": percent})


def amount(ended: int, nrows: int) -> str:
    """Return how many of some rows have ended."""
    text = ngettext("%(ended)s of %(nrows)s row", "%(ended)s of %(nrows)s rows", nrows)
    return unbroken(text % {"ended": number(ended), "nrows": number(nrows)})


def unbroken(text: str) -> str:
    """Return a text that no line breaks."""
    return text.replace(" ", NO_BREAK_SPACE)


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


def took(began_at: datetime | None, ended_at: datetime | None) -> str:
    """Return how long something took, as exactly as it is short; empty where it has not ended or never began."""
    if began_at is None or ended_at is None:
        return ""
    seconds = (ended_at - began_at).total_seconds()
    if not 0 <= seconds < MINUTE:
        return span(seconds)
    exactly = number_format(seconds, decimal_pos=3 if seconds < 1 else 1)
    return unbroken(_("%(seconds)s s") % {"seconds": exactly})


def span(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = max(floor(seconds), 0)
    if whole < MINUTE:
        text = _("%(seconds)s s") % {"seconds": whole}
    elif whole < HOUR:
        text = _("%(minutes)s min %(seconds)s s") % {"minutes": whole // MINUTE, "seconds": whole % MINUTE}
    elif whole < 2 * DAY:
        text = _("%(hours)s h %(minutes)s min") % {"hours": whole // HOUR, "minutes": whole % HOUR // MINUTE}
    else:
        text = _("%(days)s d %(hours)s h") % {"days": number(whole // DAY), "hours": whole % DAY // HOUR}
    return unbroken(text)


def json_text(value: JSON) -> str:
    """Return a JSON value as escaped, indented text, cut where it gets long."""
    return NOTHING if value is None else text_block(_dump(value), "JSON")


def text_block(value: str, label: str) -> str:
    """Return a text escaped, with its line breaks, cut where it gets long."""
    whole = value.encode()
    area = _text_area(whole[:TEXT_BYTES_MAX].decode(errors="ignore"), label)
    if len(whole) <= TEXT_BYTES_MAX:
        return area
    cut = _("The first %(shown)s of %(size)s bytes.") % {
        "shown": number(TEXT_BYTES_MAX),
        "size": number(len(whole)),
    }
    return format_html("{}<p>{}</p>", area, cut)


def _text_area(text: str, label: str) -> str:
    # The one element that wraps a text of no spaces without a style of ours, which a strict policy may forbid.
    rows = sum(len(line) // TEXT_COLUMNS + 1 for line in text.splitlines())
    # A line break that the text begins with is the element's own, and would be lost.
    return format_html(
        '<textarea class="alya-text" readonly dir="auto" cols="{}" rows="{}" aria-label="{}">\n{}</textarea>',
        TEXT_COLUMNS,
        min(max(rows, 1), TEXT_ROWS_MAX),
        label,
        text,
    )


def _dump(value: JSON) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        # Indenting is done in Python, which gives up at a depth that can still be stored.
        return json.dumps(value, ensure_ascii=False)
