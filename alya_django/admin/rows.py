"""The list of rows: those of one batch, in the order of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import QuerySet, prefetch_related_objects
from django.db.models.fields.json import KeyTransform
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from alya_django.admin import masking, permissions, row_filters, words
from alya_django.admin.paging import AFTER, BEFORE, KeysetMixin, Page, Place
from alya_django.admin.read_only import ReadOnlyAdmin
from alya_django.admin.row_filters import LOOKED_AT_MAX, STATES, Walk
from alya_django.db import OTHER
from alya_django.exceptions import InvalidInput
from alya_django.models import Batch, BatchRow
from alya_django.status import Status
from alya_django.validation import check_id

BATCH = "batch"
STATE = "status"
ERRCODE = "errcode"
LARGE = ("input", "result", "output_lines", "messages")
ERRCODES_SHOWN = 10


@dataclass(frozen=True)
class Choice:
    """A filter to choose: its words, how many rows it has where that is known, and where it leads."""

    label: str
    count: str
    address: str
    is_chosen: bool
    look: str = ""
    icon: str = ""


class RowListMixin(KeysetMixin):
    """A page of one batch's rows; without a batch there are none. A search is for a line to begin with."""

    batch_param: str
    batch: Batch | None
    state: str
    errcode: str
    counts: dict[str, int]
    errors: dict[str, int]
    all_rows: QuerySet[BatchRow]
    states: Sequence[Choice] = ()
    note = ""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        self.batch_param = str(self.params.get(BATCH, ""))
        self.errcode = str(self.params.get(ERRCODE, ""))
        self.state = "failed" if self.errcode else str(self.params.get(STATE, ""))
        self.batch = _find_batch(self.model_admin, request, self.batch_param)
        rows = super().get_queryset(request, exclude_parameters)
        if self.batch is None:
            self.search_fields = ()
            return rows.none()
        prefetch_related_objects([self.batch] if self.batch.done_at is None else [], "progress")
        self.counts = self.batch.counts(self.batch.progress.all())
        errors = self.batch.error_counts() if self.counts["nfailed"] else {}
        self.errors = masking.shown_errors(request, self.batch, errors)
        self.all_rows = rows.filter(batch=self.batch.pk).annotate(first=KeyTransform("0", "messages")).defer(*LARGE)
        self.states = list(self._states(self.batch))
        return self._filtered(self.batch)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.batch is None:
            return
        for row in self.result_list:
            row.first = masking.shown_messages(request, self.batch, [row.first] if row.first else [])

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what Django's filters see. What is chosen here is none of it."""
        filters = super().get_filters_params(params)
        for name in (BATCH, STATE, ERRCODE):
            filters.pop(name, None)
        return filters

    def start(self) -> Place | None:
        line = _line(self.query)
        if self.places[AFTER] or self.places[BEFORE] or line is None or line <= 1:
            return super().start()
        return [line - 1]

    def url_for_result(self, result: Any) -> str:
        """Lead to the page of the line."""
        return _line_page(self.model_admin, result)

    def empty_text(self) -> str:
        if self.batch is not None:
            return _("This batch has no such rows.") if not self.note else ""
        if self.batch_param:
            return _("There is no batch %(id)s.") % {"id": words.short(self.batch_param)}
        return _("Choose a batch: its page leads to its rows.")

    def progress(self) -> str:
        """Say how far the batch has come."""
        ended, nrows = sum(self.counts.values()), self.batch.nrows if self.batch else 0
        return f"{words.share(ended, nrows)}, {words.amount(ended, nrows)}"

    def common_errcodes(self) -> list[Choice]:
        """Return the most frequent errcodes of the batch."""
        return list(map(self._errcode, list(self.errors)[:ERRCODES_SHOWN]))

    def rare_errcodes(self) -> list[Choice]:
        """Return the other errcodes of the batch, of which there may be many."""
        return list(map(self._errcode, list(self.errors)[ERRCODES_SHOWN:]))

    def _states(self, batch: Batch) -> Iterator[Choice]:
        """Yield the states to choose from, with the batch's own counters: nothing is counted for them."""
        yield self._choice(_("all"), batch.nrows, is_chosen=not self.state)
        for name, state in STATES.items():
            count = _known_count(batch, self.counts, name)
            if count != 0 or name == self.state:
                yield self._choice(
                    str(state.label),
                    count,
                    {STATE: name},
                    is_chosen=self.state == name and not self.errcode,
                    look=name,
                )

    def _filtered(self, batch: Batch) -> QuerySet[Any]:
        if self.errcode:
            is_known = self.errcode in self.errors and self.errcode != masking.MASK
            return row_filters.with_errcode(self.all_rows, self.errcode) if is_known else self.all_rows.none()
        if not self.state:
            return self.all_rows
        if self.state not in STATES or _known_count(batch, self.counts, self.state) == 0:
            return self.all_rows.none()
        if STATES[self.state].first:
            self.note = _("At most %(count)s such rows can be shown: those that come first.") % {
                "count": words.number(LOOKED_AT_MAX)
            }
        return row_filters.in_state(self.all_rows, STATES[self.state])

    def _is_walked(self) -> bool:
        return self.batch is not None and not self.queryset.query.is_empty() and STATES[self.state].walked

    def _page_after(self, place: Place | None) -> Page:
        if not self.state or not self._is_walked():
            return super()._page_after(place)
        rows = self.all_rows if place is None else self.all_rows.filter(self.keyset.after(place))
        found = row_filters.walk(rows.order_by("line"), Status(self.state), self.list_per_page)
        self._note_walk(found)
        begins = found.lines[0] if found.lines else (place[0] + 1 if place else None)
        return self._page_of(found.lines, begins=begins, ends=found.until, has_previous=place is not None)

    def _page_before(self, place: Place) -> Page | None:
        if not self.state or not self._is_walked():
            return super()._page_before(place)
        rows = self.all_rows.filter(self.keyset.before(place)).order_by("-line")
        found = row_filters.walk(rows, Status(self.state), self.list_per_page)
        if found.until is None:
            return None
        self._note_walk(found)
        return self._page_of(found.lines[::-1], begins=found.until, ends=place[0] - 1, has_previous=True)

    def _page_of(self, lines: list[int], *, begins: int | None, ends: int | None, has_previous: bool) -> Page:
        """Return a page of these lines that may begin before the first of them, and end after the last."""
        rows = list(self.queryset.filter(line__in=lines)) if lines else []
        places = ("" if line is None else str(line) for line in (begins, ends))
        return Page(rows, has_previous, ends is not None, *places)

    def _note_walk(self, found: Walk) -> None:
        """Say what was looked at, where that was not enough to fill the page."""
        if found.until is not None and len(found.lines) < self.list_per_page:
            self.note = _("%(count)s rows were looked at, up to line %(line)s; the next page looks on from there.") % {
                "count": words.number(LOOKED_AT_MAX),
                "line": words.number(found.until),
            }

    def _choice(
        self, label: str, count: int | None, query: dict[str, str] | None = None, *, is_chosen: bool, look: str = ""
    ) -> Choice:
        choices = dict.fromkeys((STATE, ERRCODE, SEARCH_VAR))
        address = self.get_query_string({**choices, **(query or {})})
        shown = "" if count is None else words.number(count)
        return Choice(label, shown, address, is_chosen, look, words.ICONS.get(look, ""))

    def _errcode(self, errcode: str) -> Choice:
        """Return an errcode to filter by. Those that are counted together have none to be looked for by."""
        if errcode in (OTHER, masking.MASK):
            return Choice(errcode or _("other"), words.number(self.errors[errcode]), "", False)
        is_chosen = errcode == self.errcode
        return self._choice(words.short(errcode), self.errors[errcode], {ERRCODE: errcode}, is_chosen=is_chosen)


class BatchRowAdmin(ReadOnlyAdmin[BatchRow]):
    """The rows of a batch, in the order of lines. Each has a page among those of its batch."""

    change_list_mixin = RowListMixin
    ordering = ("line",)
    preserve_filters = False
    list_per_page = 100
    list_display = ("line", "state", "message", "attempts", "done_by", "took")
    search_fields = ("line",)
    search_help_text = gettext_lazy("The line to begin with.")

    class Media:
        css: ClassVar = {"all": ("alya_django/alya.css", "alya_django/rows.css")}

    def get_queryset(self, request: HttpRequest) -> QuerySet[BatchRow]:
        return super().get_queryset(request).filter(batch__in=permissions.listed(self.admin_site, request))

    def has_view_permission(self, request: HttpRequest, obj: BatchRow | None = None) -> bool:
        may = super().has_view_permission(request, obj)
        return may and (obj is None or permissions.shows(self.admin_site, request, obj.batch))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> BatchRow | None:
        """Return a row with its payloads as the person may see them, whatever page of Django's might show it."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            for name in ("input", "result"):
                setattr(row, name, masking.shown(request, row.batch, name, getattr(row, name)))
            row.messages = [one.as_json() for one in masking.shown_messages(request, row.batch, row.messages)]
            row.output_lines = masking.shown_lines(request, row.batch, row.output_lines or {})
        return row

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Lead to the page of the line, whatever address others have kept of the row."""
        row = self.get_object(request, unquote(object_id))
        if row is None or not self.has_view_permission(request, row):
            return super().change_view(request, object_id, form_url, extra_context)
        return HttpResponseRedirect(_line_page(self, row))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[BatchRow], search_term: str
    ) -> tuple[QuerySet[BatchRow], bool]:
        """Leave the rows as they are: a line is where the page begins, unless it is no number."""
        return (queryset.none() if search_term and _line(search_term) is None else queryset), False

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: BatchRow) -> str:
        return words.row_badge(row)

    @admin.display(description=gettext_lazy("first message"))
    def message(self, row: Any) -> str:
        return words.message(row.first[0]) if row.first else words.NOTHING

    @admin.display(description=gettext_lazy("took"))
    def took(self, row: BatchRow) -> str:
        return words.took(row.claimed_at, row.done_at) or words.NOTHING


def _line_page(model_admin: admin.ModelAdmin[BatchRow], row: BatchRow) -> str:
    address = "admin:alya_django_batch_line"
    return reverse(address, args=(row.batch_id, row.line), current_app=model_admin.admin_site.name)


def _find_batch(model_admin: admin.ModelAdmin[Any], request: HttpRequest, batch_id: str) -> Batch | None:
    try:
        return permissions.find(model_admin.admin_site, request, check_id(batch_id))
    except InvalidInput:
        return None


def _line(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _known_count(batch: Batch, counts: dict[str, int], state: str) -> int | None:
    """Return how many rows a batch has in a state, if its own counts tell: to find none would be to read them all."""
    ended = {Status.SUCCESS: "nsuccess", Status.FAILED: "nfailed", Status.ABORTED: "naborted"}
    if state in ended:
        return counts[ended[Status(state)]]
    return None if batch.done_at is None else 0
