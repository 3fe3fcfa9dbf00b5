"""The pages of batches: which there are, how far they have come, and all that is kept of one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet, prefetch_related_objects
from django.http import HttpRequest
from django.urls import URLPattern, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from alya_django.admin import lines, masking, words
from alya_django.admin.paging import KeysetMixin
from alya_django.admin.read_only import ReadOnlyAdmin, StaticFilter
from alya_django.exceptions import InvalidInput
from alya_django.models import Batch
from alya_django.querysets import HELD
from alya_django.status import Kind, Status
from alya_django.validation import check_id

LINE_BREAK = SafeString("<br>")


class StateFilter(StaticFilter):
    title = _("state")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status.value, str(status.label)) for status in Status]


class KindFilter(StaticFilter):
    title = _("kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind.value, str(kind.label)) for kind in Kind]


class HeldFilter(StaticFilter):
    title = _("held")
    parameter_name = "held"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", str(_("held")))]

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(HELD)


class BatchListMixin(KeysetMixin):
    """A page of batches, with the progress slots of those that are unfinished."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        unfinished = [batch for batch in self.result_list if batch.done_at is None]
        prefetch_related_objects(unfinished, "progress")


class BatchAdmin(ReadOnlyAdmin[Batch]):
    """Batches, latest first."""

    change_list_mixin = BatchListMixin
    app_field = "app"
    ordering = ("-requested_at", "id")
    list_per_page = 25
    list_display = (
        "short_id",
        "app",
        "op",
        "kind",
        "state",
        "progress",
        "input_file",
        "requested_by",
        "requested",
        "done",
    )
    list_filter = (StateFilter, KindFilter, HeldFilter)
    search_fields = ("id",)
    search_help_text = _("The whole id of a batch.")
    fieldsets = (
        (None, {"fields": ("id", "app", "op", "kind", "state", "hold_reason", "totals_mismatch", "progress")}),
        (_("Times"), {"fields": ("requested", "started", "done")}),
        (_("Input"), {"fields": ("input_file", "requested_by", "context_text", "unique_key", "parent_link")}),
        (_("Output"), {"fields": ("output_names", "marked_done_at", "mark_done_error")}),
        (
            _("Counts"),
            {"classes": ("collapse",), "fields": ("nrows", "nsuccess", "nfailed", "naborted")},
        ),
        (
            _("Scheduling"),
            {
                "classes": ("collapse",),
                "fields": (
                    "weight",
                    "turn",
                    "drained",
                    "held_at",
                    "nforgiven",
                    "finisher",
                    "finisher_until",
                    "root_link",
                ),
            },
        ),
    )
    readonly_fields = (
        "id",
        "state",
        "progress",
        "requested",
        "started",
        "done",
        "context_text",
        "output_names",
        "parent_link",
        "root_link",
    )

    def get_urls(self) -> list[URLPattern]:
        return [*lines.urls(self), *super().get_urls()]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Batch | None:
        batch = super().get_object(request, object_id, from_field)
        if batch is not None:
            batch.context = masking.shown(request, batch, "context", batch.context)
        return batch

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Batch], search_term: str
    ) -> tuple[QuerySet[Batch], bool]:
        """Find a batch by its id alone, by its key."""
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(pk=check_id(search_term.strip())), False
        except InvalidInput:
            return queryset.none(), False

    @admin.display(description=_("id"))
    def short_id(self, batch: Batch) -> str:
        return str(batch.id)[:8]

    @admin.display(description=_("state"))
    def state(self, batch: Batch) -> str:
        return words.batch_state(batch)

    @admin.display(description=_("progress"))
    def progress(self, batch: Batch) -> str:
        return words.progress(batch)

    @admin.display(description=_("requested at"))
    def requested(self, batch: Batch) -> str:
        return words.moment(batch.requested_at)

    @admin.display(description=_("started at"))
    def started(self, batch: Batch) -> str:
        return words.moment(batch.started_at)

    @admin.display(description=_("done at"))
    def done(self, batch: Batch) -> str:
        return words.moment(batch.done_at)

    @admin.display(description=_("context"))
    def context_text(self, batch: Batch) -> str:
        return words.json_text(batch.context)

    @admin.display(description=_("output files"))
    def output_names(self, batch: Batch) -> str:
        """List the logical names with the names of the stored objects."""
        return format_html_join(LINE_BREAK, "{}: {}", sorted(batch.object_names().items())) or words.NOTHING

    @admin.display(description=_("parent"))
    def parent_link(self, batch: Batch) -> str:
        return self._link(batch.parent_id)

    @admin.display(description=_("root"))
    def root_link(self, batch: Batch) -> str:
        return self._link(batch.root_id)

    def _link(self, batch_id: UUID | None) -> str:
        """Link to another batch, which may have been removed since, without asking for it."""
        if batch_id is None:
            return words.NOTHING
        url = reverse("admin:alya_django_batch_change", args=(batch_id,), current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, batch_id)
