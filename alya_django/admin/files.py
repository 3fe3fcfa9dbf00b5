"""The pages of received files: which came, what became of each, and what is kept of it to download."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from alya_django.admin import downloads, masking, methods, permissions, words
from alya_django.admin.file_filters import FILTERS, OUTCOMES, types_seen
from alya_django.admin.paging import KeysetMixin
from alya_django.admin.read_only import ReadOnlyAdmin
from alya_django.intake import uploads
from alya_django.models import BatchFile


class FileListMixin(KeysetMixin):
    """A page of files, as the person may see them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        for file in self.result_list:
            file.error_message = masking.shown_text(request, None, file.error_message)


class BatchFileAdmin(ReadOnlyAdmin[BatchFile]):
    """Received files, latest first. Whose they are says the checker of their type, by its apps."""

    change_list_mixin = FileListMixin
    ordering = ("-id",)
    list_per_page = 25
    list_display = ("name", "state", "batch_link", "faulty", "received")
    list_filter = FILTERS
    fieldsets = (
        (None, {"fields": ("file_name", "file_type", "outcome", "reason", "batch_link", "upload_link")}),
        (_("Faulty lines"), {"fields": ("faulty", "faults_link")}),
        (_("Content"), {"fields": ("length", "content_type", "checksum", "content_link")}),
        (_("Times"), {"fields": ("received", "processed")}),
    )
    readonly_fields = (
        "outcome",
        "reason",
        "batch_link",
        "upload_link",
        "faulty",
        "faults_link",
        "length",
        "content_link",
        "received",
        "processed",
    )
    # Django's own, which leads to the history: downloads are in it.
    change_form_template = "admin/change_form.html"

    class Media:
        css: ClassVar = {"all": ("alya_django/alya.css",)}

    def get_urls(self) -> list[URLPattern]:
        own = [
            methods.page(self.admin_site, methods.TAKE, f"<path:object_id>/{name}/", view, name=f"batchfile_{name}")
            for name, view in (("faults", self.faults_view), ("content", self.content_view))
        ]
        return [*own, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[BatchFile]:
        batches = permissions.listed(self.admin_site, request).filter(pk=OuterRef("batch")).values("pk")
        # Asked for each file that is looked at, never for all batches there are.
        queryset = super().get_queryset(request).filter(Q(batch=None) | Q(batch=Subquery(batches[:1])))
        # Where everything may be seen, also what no checker reads any more.
        return queryset if permissions.scope(request) is None else queryset.filter(file_type__in=types_seen(request))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> BatchFile | None:
        """Return a file as the person may see it, that knows what the person may download of it."""
        file = super().get_object(request, object_id, from_field)
        if file is not None:
            file.error_message = masking.shown_text(request, None, file.error_message)
            vars(file).update(
                may_download=self.has_download_permission(request),
                may_download_content=self.has_content_permission(request),
            )
        return file

    def has_view_permission(self, request: HttpRequest, obj: BatchFile | None = None) -> bool:
        may = super().has_view_permission(request, obj)
        return may and (obj is None or obj.batch is None or permissions.shows(self.admin_site, request, obj.batch))

    def has_download_permission(self, request: HttpRequest) -> bool:
        return permissions.may(request, permissions.DOWNLOAD)

    def has_content_permission(self, request: HttpRequest) -> bool:
        """Tell whether a person may have a file as it came: nothing in it is masked."""
        return self.has_download_permission(request) and permissions.may(request, permissions.INPUT)

    # The list.

    @admin.display(description=_("file"))
    def name(self, file: BatchFile) -> str:
        form = '{}<br><span class="alya-figures">{}, {}</span>'
        return format_html(form, words.short(file.file_name), words.short(file.file_type), self.length(file))

    @admin.display(description=_("state"))
    def state(self, file: BatchFile) -> str:
        """Show what became of a file and, if it was rejected, why."""
        if not file.error_message:
            return self.outcome(file)
        form = '{}<br><span class="alya-figures">{}</span>'
        return format_html(form, self.outcome(file), words.short(file.error_message))

    @admin.display(description=_("batch"))
    def batch_link(self, file: BatchFile) -> str:
        if file.batch_id is None:
            return words.NOTHING
        return format_html('<a href="{}">{}</a>', self._url("batch_change", file.batch_id), str(file.batch_id)[:8])

    @admin.display(description=_("faulty lines"))
    def faulty(self, file: BatchFile) -> str:
        return words.number(file.nfaulty)

    @admin.display(description=_("received at"))
    def received(self, file: BatchFile) -> str:
        return words.moment(file.received_at)

    # The page of one.

    @admin.display(description=_("state"))
    def outcome(self, file: BatchFile) -> str:
        outcome = OUTCOMES[file.is_accepted]
        return words.badge(outcome.look, outcome.icon, str(outcome.label))

    @admin.display(description=_("upload"))
    def upload_link(self, file: BatchFile) -> str:
        """Lead to where an upload is looked at and confirmed."""
        token = uploads.token_of(file)
        if token is None:
            return words.NOTHING
        return format_html('<a href="{}">{}</a>', self._url("batch_upload_page", token), token)

    @admin.display(description=_("reason"))
    def reason(self, file: BatchFile) -> str:
        return file.error_message or words.NOTHING

    @admin.display(description=_("size"))
    def length(self, file: BatchFile) -> str:
        return filesizeformat(file.size)

    @admin.display(description=_("processed at"))
    def processed(self, file: BatchFile) -> str:
        return words.moment(file.processed_at)

    @admin.display(description=_("error file"))
    def faults_link(self, file: Any) -> str:
        if not file.error_object_id:
            return words.NOTHING
        return self._download("faults", file, downloads.faults_name(file), may=file.may_download)

    @admin.display(description=_("as it came"))
    def content_link(self, file: Any) -> str:
        if not file.checksum:
            return words.NOTHING
        return self._download("content", file, file.file_name, may=file.may_download_content)

    def faults_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Download the faulty lines of a file, with their reasons."""
        file = self._find(request, object_id)
        if not self.has_download_permission(request):
            raise PermissionDenied
        return downloads.faults(request, file)

    def content_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Download a file as it came."""
        file = self._find(request, object_id)
        if not self.has_content_permission(request):
            raise PermissionDenied
        return downloads.content(request, file)

    def _find(self, request: HttpRequest, object_id: str) -> BatchFile:
        """Return a file that the person may see; else it is as if it were not there."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        file = self.get_object(request, unquote(object_id))
        if file is None or not self.has_view_permission(request, file):
            raise Http404
        return file

    def _download(self, page: str, file: BatchFile, name: str, *, may: bool) -> str:
        text = words.short(name)
        return format_html('<a href="{}">{}</a>', self._url(f"batchfile_{page}", file.pk), text) if may else text

    def _url(self, page: str, *arguments: Any) -> str:
        return reverse(f"admin:alya_django_{page}", args=arguments, current_app=self.admin_site.name)
