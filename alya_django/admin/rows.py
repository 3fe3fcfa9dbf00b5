"""The pages of rows: those of one batch in the order of lines, and all that is kept of one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from alya_django.admin import permissions, words
from alya_django.admin.paging import AFTER, BEFORE, KeysetMixin, Place
from alya_django.admin.read_only import ReadOnlyAdmin, StaticFilter
from alya_django.answers import ErrorMessage
from alya_django.exceptions import InvalidInput
from alya_django.models import Batch, BatchRow
from alya_django.status import Status
from alya_django.validation import check_id

BATCH = "batch"
LARGE = ("input", "result", "output_lines")

# A state beside the condition that finds its rows. Where a partial index serves, it is that index's: those of a
# batch's queued rows lie behind millions that have ended.
STATES = {
    "queued": (Status.QUEUED.label, Q(status=Status.QUEUED, retry_at__isnull=True)),
    "requeued": (gettext_lazy("requeued"), Q(status=Status.QUEUED, retry_at__isnull=False)),
    "inprog": (Status.IN_PROGRESS.label, Q(status=Status.IN_PROGRESS, claim__isnull=False)),
    "success": (Status.SUCCESS.label, Q(status=Status.SUCCESS)),
    "failed": (Status.FAILED.label, Q(status=Status.FAILED)),
    "aborted": (Status.ABORTED.label, Q(status=Status.ABORTED)),
}


class StateFilter(StaticFilter):
    title = gettext_lazy("state")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(state, label) for state, (label, _condition) in STATES.items()]

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(STATES[value][1])


class RowListMixin(KeysetMixin):
    """A page of one batch's rows; without a batch there are none. A search is for a line to begin with."""

    batch_param: str
    batch: Batch | None

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        self.batch_param = str(self.params.get(BATCH, ""))
        self.batch = _find_batch(request, self.batch_param)
        rows = super().get_queryset(request, exclude_parameters)
        if self.batch is None:
            self.search_fields = ()
            self.has_filters = False
            return rows.none()
        if not _may_have(self.batch, self.params.get(StateFilter.parameter_name)):
            return rows.none()
        return rows.filter(batch=self.batch.pk).defer(*LARGE)

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the filters see. The batch is none of it: it stays when they are cleared."""
        filters = super().get_filters_params(params)
        filters.pop(BATCH, None)
        return filters

    def start(self) -> Place | None:
        line = _line(self.query)
        if self.places[AFTER] or self.places[BEFORE] or line is None or line <= 1:
            return super().start()
        return [line - 1]

    def empty_text(self) -> str:
        if self.batch is not None:
            return _("This batch has no such rows.")
        if self.batch_param:
            return _("There is no batch %(id)s.") % {"id": words.short(self.batch_param)}
        return _("Choose a batch: its page leads to its rows.")

    def progress(self) -> str:
        """Say how far the batch has come."""
        return words.progress(self.batch) if self.batch else ""


class BatchRowAdmin(ReadOnlyAdmin[BatchRow]):
    """The rows of a batch, in the order of lines."""

    change_list_mixin = RowListMixin
    app_field = "batch__app"
    ordering = ("line",)
    list_per_page = 100
    list_display = ("line", "state", "first_message", "attempts", "done_by", "done")
    list_filter = (StateFilter,)
    search_fields = ("line",)
    search_help_text = gettext_lazy("The line to begin with.")
    fieldsets = (
        (None, {"fields": ("batch_link", "line", "state", "attempts", "lost", "retries", "done_by", "claim")}),
        (gettext_lazy("Times"), {"fields": ("requested", "claimed", "done", "retry")}),
        (
            gettext_lazy("Data"),
            {"fields": ("input_text", "result_text", "messages_text", "output_lines_text")},
        ),
    )
    readonly_fields = (
        "batch_link",
        "state",
        "requested",
        "claimed",
        "done",
        "retry",
        "input_text",
        "result_text",
        "messages_text",
        "output_lines_text",
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[BatchRow], search_term: str
    ) -> tuple[QuerySet[BatchRow], bool]:
        """Leave the rows as they are: a line is where the page begins, unless it is no number."""
        return (queryset.none() if search_term and _line(search_term) is None else queryset), False

    @admin.display(description=gettext_lazy("batch"))
    def batch_link(self, row: BatchRow) -> str:
        url = reverse("admin:alya_django_batch_change", args=(row.batch_id,), current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, row.batch_id)

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: BatchRow) -> str:
        return words.row_state(row)

    @admin.display(description=gettext_lazy("first message"))
    def first_message(self, row: BatchRow) -> str:
        return words.message(ErrorMessage.from_json(row.messages[0])) if row.messages else words.NOTHING

    @admin.display(description=gettext_lazy("requested at"))
    def requested(self, row: BatchRow) -> str:
        return words.moment(row.requested_at)

    @admin.display(description=gettext_lazy("claimed at"))
    def claimed(self, row: BatchRow) -> str:
        return words.moment(row.claimed_at)

    @admin.display(description=gettext_lazy("done at"))
    def done(self, row: BatchRow) -> str:
        return words.moment(row.done_at)

    @admin.display(description=gettext_lazy("retry at"))
    def retry(self, row: BatchRow) -> str:
        return words.moment(row.retry_at)

    @admin.display(description=gettext_lazy("input"))
    def input_text(self, row: BatchRow) -> str:
        return words.json_text(row.input)

    @admin.display(description=gettext_lazy("result"))
    def result_text(self, row: BatchRow) -> str:
        return words.json_text(row.result)

    @admin.display(description=gettext_lazy("messages"))
    def messages_text(self, row: BatchRow) -> str:
        return words.json_text(row.messages)

    @admin.display(description=gettext_lazy("output lines"))
    def output_lines_text(self, row: BatchRow) -> str:
        return words.json_text(row.output_lines)


def _find_batch(request: HttpRequest, batch_id: str) -> Batch | None:
    try:
        return permissions.narrow(Batch.objects.filter(pk=check_id(batch_id)), request, "app").first()
    except InvalidInput:
        return None


def _line(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _may_have(batch: Batch, state: str | None) -> bool:
    """Tell from a batch's own counts whether it can have rows in a state: to find none it would read them all."""
    if state is None:
        return True
    if batch.done_at is None:
        return state != Status.ABORTED
    counts: dict[str, int | None] = {
        Status.SUCCESS: batch.nsuccess,
        Status.FAILED: batch.nfailed,
        Status.ABORTED: batch.naborted,
    }
    return bool(counts.get(state))
