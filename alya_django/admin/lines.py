"""The page of one line of a batch: what came in, what became of it, where it went, and what is next to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _

from alya_django.admin import acts, confirm, masking, methods, permissions, words
from alya_django.models import Batch, BatchRow
from alya_django.status import Kind, Status

if TYPE_CHECKING:
    from alya_django.admin.batches import BatchAdmin

VIEW_ROWS = "view_batchrow"


@dataclass(frozen=True)
class Message:
    """Why a row failed, for a person to read."""

    errcode: str
    field: str
    values: str
    plainly: str


@dataclass(frozen=True)
class Sequel:
    """What became of a line in a batch that repeats it."""

    batch: Batch
    badge: str
    address: str


@dataclass(frozen=True)
class Given:
    """What a row gave to an output file, and where the person can download that."""

    name: str
    text: str
    address: str


def urls(pages: BatchAdmin) -> list[URLPattern]:
    """Return the addresses of lines, below those of batches."""
    site = pages.admin_site

    def show(request: HttpRequest, batch_id: UUID, line: int) -> HttpResponse:
        return _show(pages, request, _find_batch(pages, request, batch_id), line)

    def retry(request: HttpRequest, batch_id: UUID, line: int) -> HttpResponse:
        batch, back = _find_batch(pages, request, batch_id), _page_of(pages, batch_id, line)
        return confirm.answer_one(pages, request, acts.retry_line(line), batch, back=back)

    def find(request: HttpRequest, batch_id: UUID) -> HttpResponse:
        return _lead(pages, request, _find_batch(pages, request, batch_id))

    of_batch = "<uuid:batch_id>/line/"
    return [
        methods.page(site, methods.LOOK, of_batch, find, name="batch_find_line"),
        methods.page(site, methods.LOOK, f"{of_batch}<int:line>/", show, name="batch_line"),
        methods.page(site, methods.ASK, f"{of_batch}<int:line>/retry/", retry, name="batch_retry_line"),
    ]


def _find_batch(pages: BatchAdmin, request: HttpRequest, batch_id: UUID) -> Batch:
    """Return a batch whose rows the person may see; else it is as if it were not there."""
    if not permissions.may(request, VIEW_ROWS):
        raise PermissionDenied
    batch = permissions.find(pages.admin_site, request, batch_id)
    if batch is None:
        raise Http404
    return batch


def _lead(pages: BatchAdmin, request: HttpRequest, batch: Batch) -> HttpResponse:
    """Lead from the number of a line to its page."""
    line = request.GET.get("line", "").strip()
    if not (line.isascii() and line.isdecimal()):
        return _missing(pages, request, batch, line)
    return HttpResponseRedirect(_page_of(pages, batch.pk, int(line)) if len(line) < 20 else f"?line={line[:10]}")


def _show(pages: BatchAdmin, request: HttpRequest, batch: Batch, line: int) -> HttpResponse:
    rows = BatchRow.objects.filter(batch=batch.pk)
    row = rows.filter(line=line).first()
    if row is None:
        return _missing(pages, request, batch, str(line))
    payloads = {name: masking.shown(request, batch, name, getattr(row, name)) for name in ("input", "result")}
    return _render(
        pages,
        request,
        batch,
        row=row,
        title=_title(batch, line),
        badge=words.row_badge(row),
        may_retry=confirm.is_allowed(pages, request, acts.retry_line(line), batch),
        events=list(_events(row)),
        messages_of_row=list(_messages(request, batch, row)),
        payloads={name: words.json_text(value) for name, value in payloads.items()},
        given=list(_given(pages, request, batch, row)),
        neighbours=[
            (label, _page_of(pages, batch.pk, neighbour) if neighbour is not None else "")
            for label, neighbour in _failed_neighbours(rows, line)
        ],
        sequels=_sequels(pages, request, batch, line),
        parent=_page_of(pages, batch.parent_id, line) if batch.parent_id and batch.kind == Kind.BATCH else "",
    )


def _missing(pages: BatchAdmin, request: HttpRequest, batch: Batch, line: str) -> HttpResponse:
    """Say that a batch has no such line, and which it has."""
    in_order = BatchRow.objects.filter(batch=batch.pk).order_by("line").values_list("line", flat=True)
    ends = [*in_order[:1], *in_order.reverse()[:1]]
    response = _render(
        pages,
        request,
        batch,
        title=_("No line %(line)s") % {"line": words.short(line)},
        lines=list(map(words.number, ends)),
    )
    response.status_code = 404
    return response


def _render(pages: BatchAdmin, request: HttpRequest, batch: Batch, **context: Any) -> TemplateResponse:
    request.current_app = pages.admin_site.name
    return TemplateResponse(
        request,
        "alya_django/line.html",
        {
            **pages.admin_site.each_context(request),
            "opts": pages.opts,
            "batch": batch,
            "is_slow_query": batch.kind == Kind.SLOW_QUERY,
            "may_view_batch": permissions.may(request, permissions.VIEW),
            **context,
        },
    )


def _title(batch: Batch, line: int) -> str:
    if batch.kind == Kind.SLOW_QUERY:
        return _("The row of a slow query")
    return _("Line %(line)s") % {"line": words.number(line)}


def _events(row: BatchRow) -> Iterator[tuple[str, str]]:
    """Yield what is known of a row's way, in words and in the order in which it happened."""
    yield _("submitted"), words.moment(row.requested_at)
    yield _("attempts"), words.number(row.attempts)
    if row.lost:
        yield _("its worker died"), words.times(row.lost)
    if row.retries:
        yield _("put off by its processor"), words.times(row.retries)
    if row.retry_at:
        yield _("due again"), words.moment(row.retry_at)
    if row.claimed_at:
        yield _("last claimed"), words.moment(row.claimed_at)
    if row.done_by:
        yield _("by worker"), row.done_by
    if row.done_at:
        yield _("ended"), words.moment(row.done_at)
        yield _("took"), words.took(row.claimed_at, row.done_at) or words.NOTHING


def _messages(request: HttpRequest, batch: Batch, row: BatchRow) -> Iterator[Message]:
    for error in masking.shown_messages(request, batch, row.messages):
        yield Message(error.errcode, error.field, ", ".join(map(str, error.vals)), words.plainly(error))


def _given(pages: BatchAdmin, request: HttpRequest, batch: Batch, row: BatchRow) -> Iterator[Given]:
    """Yield what a row gave to which output file; there is a file once the batch has ended."""
    may_download = permissions.may(request, permissions.VIEW) and pages.has_download_permission(request, batch)
    file = reverse("admin:alya_django_batch_output", args=(batch.pk,), current_app=pages.admin_site.name)
    for name, text in sorted(masking.shown_lines(request, batch, row.output_lines or {}).items()):
        is_there = may_download and name in batch.output_files
        yield Given(name, words.text_block(text, name), f"{file}?{urlencode({'name': name})}" if is_there else "")


def _failed_neighbours(rows: QuerySet[BatchRow], line: int) -> list[tuple[str, int | None]]:
    """Return the nearest failed lines before and behind a line."""
    failed = rows.filter(status=Status.FAILED).values_list("line", flat=True)
    return [
        (_("Previous failed line"), next(iter(failed.filter(line__lt=line).order_by("-line")[:1]), None)),
        (_("Next failed line"), next(iter(failed.filter(line__gt=line).order_by("line")[:1]), None)),
    ]


def _sequels(pages: BatchAdmin, request: HttpRequest, batch: Batch, line: int) -> list[Sequel]:
    """Return what became of a line in the retries of its batch, and in theirs, the latest first."""
    family = permissions.listed(pages.admin_site, request).family_of(batch)
    rows = BatchRow.objects.filter(batch__in=family, line=line).select_related("batch")
    known, sequels = {batch.pk}, []
    # A child's rows are stored after their parent's, and a line that a child has its parent has, too.
    for row in sorted(rows.defer("input", "result", "messages", "output_lines"), key=lambda row: row.pk):
        if row.batch.parent_id in known and permissions.shows(pages.admin_site, request, row.batch):
            known.add(row.batch_id)
            sequels.append(Sequel(row.batch, words.row_badge(row), _page_of(pages, row.batch_id, line)))
    return sequels[::-1]


def _page_of(pages: BatchAdmin, batch_id: UUID, line: int) -> str:
    return reverse("admin:alya_django_batch_line", args=(batch_id, line), current_app=pages.admin_site.name)
