"""What is taken out: output files, failed lines, received files and their faults. Each download is logged."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from django.core.files.base import File
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _

from alya_django import batches, intake, outputs, slow_queries
from alya_django.admin import audit, masking
from alya_django.answers import RowOutcome
from alya_django.exceptions import InvalidState, NotFound
from alya_django.models import Batch, BatchFile
from alya_django.readable import readable
from alya_django.spreadsheets import harmless
from alya_django.status import Kind, Status
from alya_django.validation import JSON

LINK_SECONDS = 60
COLUMNS = ("line", "errcode", "field", "values", "attempts", "done_by", "done_at")


def output_file(request: HttpRequest, batch: Batch, name: str) -> HttpResponse:
    """Answer with an output file: by a link that expires where the storage signs such, else as a stream."""
    if name not in batch.output_files:
        raise Http404(_("There is no output file %(name)s.") % {"name": name})
    verbs = batches if batch.kind == Kind.BATCH else slow_queries
    response = _stored(batch.object_names()[name], name, lambda: verbs.open_output(batch.pk, name))
    audit.log(request, batch, _("Downloaded the output file %(name)s.") % {"name": name})
    return response


def failed_lines(request: HttpRequest, batch: Batch) -> HttpResponse:
    """Answer with the failed lines of a batch as CSV, one line for each message, in memory that does not grow."""
    _demand_lines(batch)
    audit.log(request, batch, _("Downloaded the failed lines."))
    rows = batches.iter_rows(batch.pk, status=Status.FAILED)
    return _csv(f"{batch.app}-{batch.op}-{str(batch.pk)[:8]}-failed.csv", _table(request, batch, rows))


def return_file(request: HttpRequest, batch: Batch) -> HttpResponse:
    """Answer with the failed rows of a batch as a file that can be corrected, and received again."""
    _demand_lines(batch)
    try:
        file = intake.return_file(batch.pk)
    except (InvalidState, NotFound) as refusal:
        raise Http404(str(refusal)) from refusal
    audit.log(request, batch, _("Downloaded the return file."))
    return _safe(FileResponse(file, as_attachment=True, filename=_base_name(file.name or "")))


def content(request: HttpRequest, file: BatchFile) -> HttpResponse:
    """Answer with a received file as it came."""
    if not file.checksum:
        raise Http404(_("The file did not arrive whole."))
    response = _stored(file.object_id, file.file_name, lambda: outputs.open(file.object_id))
    audit.log(request, file, _("Downloaded the file."))
    return response


def faults(request: HttpRequest, file: BatchFile) -> HttpResponse:
    """Answer with the faulty lines of a received file, and the reasons as far as the person may see them."""
    if not file.error_object_id:
        raise Http404(_("The file has no faulty line."))
    if masking.hides_texts(request):
        response = _csv(faults_name(file), _without_reasons(file))
    else:
        response = _stored(file.error_object_id, faults_name(file), lambda: outputs.open(file.error_object_id))
    audit.log(request, file, _("Downloaded the faulty lines."))
    return response


def faults_name(file: BatchFile) -> str:
    """Return what the faulty lines of a file are called where they are downloaded."""
    return f"{file.file_name}.faults.csv"


def _demand_lines(batch: Batch) -> None:
    """Answer 404 for what has no lines to give back."""
    if batch.kind != Kind.BATCH:
        raise Http404(_("A slow query has no lines."))


def _without_reasons(file: BatchFile) -> Iterator[list[Any]]:
    """Yield the faulty lines of a file, the reasons hidden, in memory that does not grow."""
    with outputs.open(file.error_object_id) as stored:
        lines = csv.reader(io.TextIOWrapper(stored, encoding="utf-8", newline=""))
        yield next(lines)
        yield from ([line, masking.MASK] for line, _reason in lines)


def _csv(name: str, rows: Iterator[list[Any]]) -> HttpResponse:
    """Answer with rows as they come, for people to open in a spreadsheet."""
    writer = csv.writer(_Echo())
    lines = (writer.writerow(map(_cell, cells)) for cells in rows)
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(True, _base_name(name))
    return _safe(response)


def _stored(object_name: str, name: str, open_object: Callable[[], File[Any]]) -> HttpResponse:
    """Answer with an object: by a link that expires where the storage signs such, else as a stream."""
    disposition = content_disposition_header(True, _base_name(name)) or "attachment"
    link = outputs.signed_link(object_name, disposition=disposition, seconds=LINK_SECONDS)
    if link is not None:
        return HttpResponseRedirect(link)
    try:
        file = open_object()
    except FileNotFoundError as error:
        raise Http404(_("%(name)s is no longer in the storage.") % {"name": name}) from error
    return _safe(FileResponse(file, as_attachment=True, filename=_base_name(name)))


def _table(request: HttpRequest, batch: Batch, rows: Iterator[RowOutcome]) -> Iterator[list[Any]]:
    yield list(COLUMNS)
    for row in rows:
        done_at = row.done_at.isoformat() if row.done_at else ""
        stored: list[JSON] = [message.as_json() for message in row.messages]
        for message in masking.shown_messages(request, batch, stored):
            values = json.dumps(message.vals, ensure_ascii=False) if message.vals else ""
            yield [row.line, message.errcode, message.field, values, row.attempts, row.done_by, done_at]


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet runs, and that shows what it has: the file is for people to read."""
    return harmless(readable(value)) if isinstance(value, str) else value


def _base_name(name: str) -> str:
    # A line break would end the header that the name stands in, and Django refuses that.
    printable = "".join(char for char in name if char.isprintable())
    return printable.replace("\\", "/").rsplit("/", 1)[-1] or "output"


def _safe(response: Any) -> HttpResponse:
    response["X-Content-Type-Options"] = "nosniff"
    answer: HttpResponse = response
    return answer


class _Echo:
    """A file that hands back what is written to it."""

    def write(self, text: str) -> str:
        return text
