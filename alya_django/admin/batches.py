"""The pages of batches: which there are, how far they have come, all that is kept of one, and what is done to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, ClassVar, cast
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.forms.widgets import Script
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from alya_django.admin import (
    acts,
    asked,
    confirm,
    downloads,
    figures,
    lines,
    live,
    masking,
    methods,
    permissions,
    report,
    uploads,
    words,
)
from alya_django.admin.acts import Act
from alya_django.admin.batch_filters import FILTERS
from alya_django.admin.figures import Figures
from alya_django.admin.file_filters import sees_type
from alya_django.admin.paging import KeysetMixin
from alya_django.admin.read_only import ReadOnlyAdmin
from alya_django.intake.uploads import Upload
from alya_django.models import Batch
from alya_django.querysets import WITH_FILE
from alya_django.status import Kind

LINE_BREAK = SafeString("<br>")
FOUND_MAX = 1_000
HEX_ID = re.compile(r"[0-9a-f]{1,32}")


class BatchListMixin(KeysetMixin):
    """A page of batches, with the figures of each."""

    figures: dict[UUID, Figures]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.figures = figures.of(self.result_list)
        # One that was removed in this moment has none.
        self.result_list = [batch for batch in self.result_list if batch.pk in self.figures]
        for batch in self.result_list:
            batch.figures = self.figures[batch.pk]

    @property
    def is_moving(self) -> bool:
        """Whether there is something to renew."""
        return not all(one.is_final for one in self.figures.values())


class BatchAdmin(ReadOnlyAdmin[Batch]):
    """
    Batches, latest first.

    Who may do what to a batch is asked of ``has_release_permission`` and its like, on every page and in every act.
    """

    change_list_mixin = BatchListMixin
    app_field = "app"
    ordering = ("-requested_at", "id")
    list_per_page = 25
    list_display = ("name", "app_and_op", "state", "failed", "asked_for")
    list_filter = FILTERS
    search_fields = ("id",)
    search_help_text = _(
        "An id or its beginning, or the beginning of an input file's name. Of ids that begin alike, 1,000 are found."
    )
    actions = ("release_chosen", "retry_chosen", "abort_chosen")
    fieldsets = (
        (None, {"fields": ("id", "app", "op", "kind", "status", "hold_reason", "totals_mismatch")}),
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
        "requested",
        "started",
        "done",
        "context_text",
        "output_names",
        "parent_link",
        "root_link",
    )

    class Media:
        css: ClassVar = {"all": ("alya_django/alya.css",)}
        js = (Script("alya_django/progress.js", type="module"),)

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site
        own = [
            methods.page(site, methods.TAKE, "progress/", self.progress_view, name="batch_progress"),
            *(
                methods.page(site, methods.TAKE, f"<path:object_id>/{route}/", view, name=f"batch_{name}")
                for route, name, view in (
                    ("output", "output", self.output_view),
                    ("failed-lines", "failed_lines", self.failed_lines_view),
                    ("return-file", "return_file", self.return_file_view),
                )
            ),
            *(
                methods.page(
                    site,
                    methods.ASK,
                    f"<path:object_id>/{act.name}/",
                    partial(self.act_view, act),
                    name=f"batch_{act.name}",
                )
                for act in acts.ACTS
            ),
        ]
        return [*lines.urls(self), *uploads.urls(self), *own, *super().get_urls()]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Batch | None:
        batch = super().get_object(request, object_id, from_field)
        if batch is not None:
            batch.context = masking.shown(request, batch, "context", batch.context)
            batch.mark_done_error = masking.shown_text(request, batch, batch.mark_done_error)
            batch.totals_mismatch = masking.shown_differences(request, batch, batch.totals_mismatch)
            vars(batch).update(may_download=self.has_download_permission(request, batch))
        return batch

    def get_queryset(self, request: HttpRequest) -> QuerySet[Batch]:
        return super().get_queryset(request).filter(pruned_at__isnull=True)

    # Who may do what.

    def has_release_permission(self, request: HttpRequest, batch: Batch | None = None) -> bool:
        return permissions.may(request, permissions.RELEASE, batch)

    def has_retry_permission(self, request: HttpRequest, batch: Batch | None = None) -> bool:
        return permissions.may(request, permissions.RETRY, batch)

    def has_abort_permission(self, request: HttpRequest, batch: Batch | None = None) -> bool:
        return permissions.may(request, permissions.ABORT, batch)

    def has_download_permission(self, request: HttpRequest, batch: Batch | None = None) -> bool:
        return permissions.may(request, permissions.DOWNLOAD, batch)

    def has_confirm_permission(self, request: HttpRequest, upload: Upload | None = None) -> bool:
        """Tell whether a person may have an upload loaded; without one, any at all."""
        return permissions.may(request, permissions.SUBMIT)

    # The list.

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_upload = bool(uploads.types(request))
        return super().changelist_view(request, {"may_upload": may_upload, **(extra_context or {})})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Batch], search_term: str
    ) -> tuple[QuerySet[Batch], bool]:
        """
        Find batches by the beginning of their id or of their file's name: each is a range of an index.

        Of more than FOUND_MAX ids that begin alike, the first are found.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(input_file__startswith=term) & WITH_FILE
        digits = term.replace("-", "").lower()
        if HEX_ID.fullmatch(digits):
            # Looked up first: the planner takes any range of ids for a hundredth of all, and walks along the latest.
            ids = Batch.objects.beginning_with(digits).order_by("pk").values_list("pk", flat=True)[:FOUND_MAX]
            found |= Q(pk__in=list(ids))
        return queryset.filter(found), False

    @admin.action(permissions=["release"], description=_("Release the chosen batches"))
    def release_chosen(self, request: HttpRequest, queryset: QuerySet[Batch]) -> HttpResponse | None:
        return confirm.answer_many(self, request, acts.RELEASE)

    @admin.action(permissions=["retry"], description=_("Retry failed rows of the chosen batches"))
    def retry_chosen(self, request: HttpRequest, queryset: QuerySet[Batch]) -> HttpResponse | None:
        return confirm.answer_many(self, request, acts.RETRY)

    @admin.action(permissions=["abort"], description=_("Abort the chosen batches"))
    def abort_chosen(self, request: HttpRequest, queryset: QuerySet[Batch]) -> HttpResponse | None:
        return confirm.answer_many(self, request, acts.ABORT)

    @admin.display(description=_("batch"))
    def name(self, batch: Batch) -> str:
        short_id = str(batch.pk)[:8]
        if not batch.input_file:
            return short_id
        return format_html('{}<br><span class="alya-file">{}</span>', short_id, words.short(batch.input_file))

    @admin.display(description=_("app / op"))
    def app_and_op(self, batch: Batch) -> str:
        kind = batch.get_kind_display()
        return format_html('{} / {}<br><span class="alya-figures">{}</span>', batch.app, batch.op, kind)

    @admin.display(description=_("state"))
    def state(self, batch: Any) -> str:
        """Show how far a batch has come, and its pace."""
        share, amount = (live.text(batch.figures, name) for name in ("share", "amount"))
        form = '{}<br>{}<br><span class="alya-figures">{}, {}<br>{}</span>'
        return format_html(form, live.badge(batch.figures), live.bar(batch.figures), share, amount, _pace(batch))

    @admin.display(description=_("failed"))
    def failed(self, batch: Any) -> str:
        text = live.text(batch.figures, "failed")
        if not batch.figures.nfailed:
            return text
        rows = self._url("batchrow_changelist")
        return format_html('<a href="{}?batch={}&amp;status=failed">{}</a>', rows, batch.pk, text)

    @admin.display(description=_("requested"))
    def asked_for(self, batch: Batch) -> str:
        form = '{}<br><span class="alya-figures">{}</span>'
        return format_html(form, words.moment(batch.requested_at), words.short(batch.requested_by))

    # The page of one.

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Batch | None = None,
    ) -> HttpResponse:
        """Show a report instead of a form."""
        # Nothing is added here, so there always is one.
        batch = cast("Batch", obj)
        made = report.make(batch, masking.shown_errors(request, batch, batch.error_counts()), self._seen(request))
        under_way = asked.to_do(one.query for one in made.asked)
        possible = confirm.allowed(self, request, batch, under_way)
        context.update(
            report=made,
            acts=[(act, self._url(f"batch_{act.name}", batch.pk)) for act in possible],
            may_download=self.has_download_permission(request, batch),
            may_see_input=permissions.may(request, permissions.INPUT, batch),
            files_seen={file.pk for file in made.received if sees_type(request, file.file_type)},
            mask=masking.MASK,
            is_batch=batch.kind == Kind.BATCH,
            title=batch.input_file or str(batch),
            subtitle=None,
        )
        return super().render_change_form(request, context, add, change, form_url, obj)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show who did what, and what came of that which workers were asked to do."""
        batch = self.get_object(request, unquote(object_id))
        found = [] if batch is None else asked.of(batch)
        return super().history_view(request, object_id, {"asked": found, **(extra_context or {})})

    def progress_view(self, request: HttpRequest) -> JsonResponse:
        """Answer what the pages poll."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return live.answer(request.GET.get("ids", ""), self._seen(request))

    def act_view(self, act: Act, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask before an act, and carry it out."""
        return confirm.answer_one(self, request, act, self._find(request, object_id))

    def output_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Download an output file by its logical name."""
        return downloads.output_file(request, self._find_to_download(request, object_id), request.GET.get("name", ""))

    def failed_lines_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Download the failed lines of a batch."""
        return downloads.failed_lines(request, self._find_to_download(request, object_id))

    def return_file_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Download the failed rows as a file to be corrected: nothing in it is masked."""
        batch = self._find_to_download(request, object_id)
        permissions.demand(request, permissions.INPUT, batch)
        return downloads.return_file(request, batch)

    def page_of(self, batch_id: UUID) -> str:
        """Return the address of a batch's page."""
        return self._url("batch_change", batch_id)

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

    @admin.display(description=_("objects in the storage"))
    def output_names(self, batch: Batch) -> str:
        """List the logical names with the names of the stored objects, for who may have these."""
        if not vars(batch).get("may_download"):
            return masking.MASK
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
        return format_html('<a href="{}">{}</a>', self.page_of(batch_id), batch_id)

    def _seen(self, request: HttpRequest) -> Callable[[Collection[UUID]], list[Batch]]:
        """Return what finds those of some batches that the person may see."""
        return partial(permissions.seen, self.admin_site, request)

    def _find(self, request: HttpRequest, object_id: str) -> Batch:
        """Return a batch that the person may see; else it is as if it were not there."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        batch = self.get_object(request, unquote(object_id))
        if batch is None or not self.has_view_permission(request, batch):
            raise Http404
        return batch

    def _find_to_download(self, request: HttpRequest, object_id: str) -> Batch:
        batch = self._find(request, object_id)
        if not self.has_download_permission(request, batch):
            raise PermissionDenied
        return batch

    def _url(self, page: str, *arguments: Any) -> str:
        return reverse(f"admin:alya_django_{page}", args=arguments, current_app=self.admin_site.name)


def _pace(batch: Any) -> str:
    """Return how fast a batch goes and how long it will take, or how long it took."""
    if batch.done_at:
        return words.took(batch.started_at, batch.done_at)
    rate, left = (live.text(batch.figures, name) for name in ("rate", "time-left"))
    return format_html("{} {}", rate, left)
