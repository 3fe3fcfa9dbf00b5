"""What is said of an uploaded file: its state, how far it is loaded, and how much of it was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from alya_django.admin.words import ICONS, moment, number, share, unbroken
from alya_django.intake.preview import BYTES_MAX, LINES_MAX, SECONDS_MAX, Preview
from alya_django.intake.uploads import Upload
from alya_django.status import Status

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

STATES: dict[str, StrPromise] = {
    "wait": gettext_lazy("not confirmed"),
    "queued": gettext_lazy("waiting for a worker"),
    "inprog": gettext_lazy("loading"),
    "success": gettext_lazy("loaded"),
    "failed": gettext_lazy("rejected"),
    "aborted": gettext_lazy("not loaded"),
}
"""The states of an upload, by the words by which icons and style sheets know them."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How far an upload is, in figures; ``read`` is None where nobody knows."""

    token: str
    state: str
    size: int
    read: int | None = None

    @classmethod
    def of(cls, upload: Upload) -> Loading:
        return cls(str(upload.token), state(upload), upload.file.size, upload.position)

    @property
    def is_moving(self) -> bool:
        return self.state in ("queued", "inprog")

    @property
    def value(self) -> int:
        return self.read or 0

    @property
    def max(self) -> int:
        return max(self.size, 1)

    def as_json(self) -> dict[str, Any]:
        """Return what the page shows, as it is renewed."""
        return {
            "final": not self.is_moving,
            "look": self.state,
            "value": self.value,
            "max": self.max,
            "texts": self.texts(),
        }

    def texts(self) -> dict[str, str]:
        """Return the texts that are renewed, by their names."""
        return {
            "icon": ICONS[self.state],
            "state": str(STATES[self.state]),
            "share": self._share(),
            "amount": self._amount(),
        }

    def elements(self) -> dict[str, SafeString]:
        """Return the same texts as elements, which the script finds."""
        form = '<span data-alya-batch="{}" data-alya-text="{}">{}</span>'
        return {name: format_html(form, self.token, name, text) for name, text in self.texts().items()}

    def _share(self) -> str:
        if self.state != "inprog" or self.read is None:
            return ""
        return share(self.read, self.size)

    def _amount(self) -> str:
        if self.state != "inprog":
            return ""
        if self.read is None:
            return _("How far it has come is not known.")
        amounts = {"read": filesizeformat(self.read), "size": filesizeformat(self.size)}
        return unbroken(_("%(read)s of %(size)s read") % amounts)


def state(upload: Upload) -> str:
    """Return the word by which icons and style sheets know an upload's state."""
    if upload.file.is_accepted is not None:
        return "success" if upload.file.is_accepted else "failed"
    if upload.load is None:
        return "wait"
    status = Status(upload.load.status)
    return "aborted" if status.is_final else str(status.value)


def uploaded(upload: Upload) -> str:
    """Say when a file was uploaded, and by whom."""
    at, who = moment(upload.file.received_at), upload.uploaded_by
    return _("%(at)s by %(who)s") % {"at": at, "who": who}


def outcome(upload: Upload) -> str:
    """Say what an accepted file has become."""
    nrows, nfaulty = upload.file.receipt().nrows, upload.file.nfaulty
    rows = ngettext("It has become a batch of %(count)s row.", "It has become a batch of %(count)s rows.", nrows)
    said = rows % {"count": number(nrows)}
    if not nfaulty:
        return said
    faulty = ngettext("%(count)s faulty line was left out.", "%(count)s faulty lines were left out.", nfaulty)
    return f"{said} {faulty % {'count': number(nfaulty)}}"


def declared(found: Preview) -> str:
    """Say what a file declares of itself."""
    totals = found.declared or {"count": None, "sums": {}}
    count = [] if totals["count"] is None else [_count_rows(totals["count"])]
    return ", ".join([*count, *(f"{name} {value}" for name, value in totals["sums"].items())])


def more_faults(found: Preview) -> str:
    """Say how many faulty lines were found beside those that are shown."""
    more = found.nfaulty - len(found.faults)
    text = ngettext("%(count)s more was found.", "%(count)s more were found.", more)
    return text % {"count": number(more)} if more else ""


def looked_at(found: Preview) -> str:
    """Say how much of a file was looked at, and what was found."""
    return f"{_extent(found.stopped_by)} {_count(found)}"


def _extent(stopped_by: str) -> str:
    if stopped_by == "lines":
        return _("The first %(count)s lines were looked at, the others will be when the file is loaded.") % {
            "count": number(LINES_MAX)
        }
    if stopped_by == "bytes":
        return _("Only the first %(size)s were looked at, the rest will be when the file is loaded.") % {
            "size": filesizeformat(BYTES_MAX)
        }
    if stopped_by == "seconds":
        return ngettext(
            "Looking ended after %(count)s second, the rest will be looked at when the file is loaded.",
            "Looking ended after %(count)s seconds, the rest will be looked at when the file is loaded.",
            round(SECONDS_MAX),
        ) % {"count": number(round(SECONDS_MAX))}
    return _("The whole file was looked at.")


def _count(found: Preview) -> str:
    faulty = ngettext("%(count)s faulty line", "%(count)s faulty lines", found.nfaulty)
    parts = {"rows": _count_rows(found.nrows), "faulty": faulty % {"count": number(found.nfaulty)}}
    return _("Found: %(rows)s, %(faulty)s.") % parts


def _count_rows(count: int) -> str:
    return ngettext("%(count)s row", "%(count)s rows", count) % {"count": number(count)}
