"""The pages on which people upload a file: they choose it, look at what is in it, confirm it, and see it loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from alya_django import slow_queries
from alya_django.admin import audit, masking, methods, permissions, report, upload_words, words
from alya_django.admin.confirm import ReasonForm
from alya_django.admin.file_filters import sees_type
from alya_django.admin.preview_table import table
from alya_django.admin.upload_words import Loading
from alya_django.checkers import FileChecker, checkers
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.intake import preview, uploads
from alya_django.intake.uploads import Upload
from alya_django.models import Batch, BatchFile, database
from alya_django.status import Kind
from alya_django.validation import TEXT_MAX, check_id

if TYPE_CHECKING:
    from alya_django.admin.batches import BatchAdmin

VIEW_FILES = "view_batchfile"


def types(request: HttpRequest) -> list[FileChecker]:
    """Return the types of files that a person may upload."""
    if not permissions.may(request, permissions.SUBMIT):
        return []
    return [checker for checker in checkers if checker.upload and sees_type(request, checker.file_type)]


def urls(pages: BatchAdmin) -> list[URLPattern]:
    """Return the addresses of uploads, below those of batches."""
    site = pages.admin_site
    choose = _measured(pages, lambda request: _choose(pages, request))

    def of_upload(view: Callable[[BatchAdmin, HttpRequest, Upload], HttpResponse]) -> Callable[..., HttpResponse]:
        return lambda request, token: view(pages, request, _find(pages, request, token))

    return [
        methods.page(site, methods.ASK, "upload/", choose, name="batch_upload"),
        methods.page(site, methods.TAKE, "upload/progress/", _progress, name="batch_upload_progress"),
        *(
            methods.page(site, served, f"upload/<uuid:token>/{route}", of_upload(view), name=f"batch_upload_{name}")
            for served, route, view, name in (
                (methods.LOOK, "", _show, "page"),
                (methods.DO, "confirm/", _confirm, "confirm"),
                (methods.DO, "discard/", _discard, "discard"),
            )
        ),
    ]


class UploadForm(forms.Form):
    """Which file, and of which type."""

    file_type = forms.ChoiceField(label=gettext_lazy("Type of the file"))
    file = forms.FileField(label=gettext_lazy("File"), max_length=TEXT_MAX)

    def __init__(self, *args: Any, types: list[FileChecker], is_too_large: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices: Any = self.fields["file_type"]
        choices.choices = [(one.file_type, one.label or one.file_type) for one in types]
        if is_too_large:
            self.fields["file"].error_messages["required"] = _too_large()


class _Limit(FileUploadHandler):
    """What lets in FILE_BYTES_MAX, in how many files ever they are sent: the rest is read off and dropped."""

    is_exceeded = False

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self._left: int = settings.FILE_BYTES_MAX

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._left -= len(raw_data)
        if self._left < 0:
            self.is_exceeded = True
            raise SkipFile
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """Leave it to the next handler to make a file of it."""


def _measured(pages: BatchAdmin, view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """
    Return a view that reads no file before the person may upload one, and no more of it than FILE_BYTES_MAX.

    Whoever has uploaded UPLOADS_MAX files that are not decided on may not.

    The token against forgery is in the body of the request, so it is looked at after that, but before the view is.
    """
    protected = csrf_protect(view)

    def measured(request: HttpRequest) -> HttpResponse:
        permissions.demand(request, permissions.SUBMIT)
        undecided = uploads.undecided_of(_name_of(request))
        if len(undecided) >= settings.UPLOADS_MAX:
            return _refuse(pages, request, undecided)
        request.upload_handlers.insert(0, _Limit(request))
        return protected(request)

    exempt: Callable[[HttpRequest], HttpResponse] = csrf_exempt(measured)
    return exempt


def _too_large() -> str:
    return _("The file is larger than %(size)s, the limit.") % {"size": filesizeformat(settings.FILE_BYTES_MAX)}


def _refuse(pages: BatchAdmin, request: HttpRequest, undecided: list[BatchFile]) -> TemplateResponse:
    """Say which files are to be confirmed or discarded before there may be another; what was sent is not read."""
    waiting = [
        (words.short(file.file_name), _page_of(pages, token))
        for file in undecided
        if (token := uploads.token_of(file))
    ]
    response = _render(pages, request, "upload", _("Upload a file"), waiting=waiting)
    response.status_code = 429 if request.method == "POST" else 200
    return response


def _choose(pages: BatchAdmin, request: HttpRequest) -> HttpResponse:
    """Ask for a file, and keep it."""
    offered = types(request)
    form = UploadForm(types=offered)
    if request.method == "POST":
        data, files = request.POST, request.FILES
        is_too_large = any(getattr(handler, "is_exceeded", False) for handler in request.upload_handlers)
        form = UploadForm(data, files, types=offered, is_too_large=is_too_large)
        if form.is_valid():
            return _keep(pages, request, form.cleaned_data["file_type"], form.cleaned_data["file"])
    chosen = form["file_type"].value() or (offered[0].file_type if len(offered) == 1 else "")
    limit = filesizeformat(settings.FILE_BYTES_MAX)
    return _render(pages, request, "upload", _("Upload a file"), form=form, types=offered, chosen=chosen, limit=limit)


def _keep(pages: BatchAdmin, request: HttpRequest, file_type: str, file: Any) -> HttpResponse:
    """Keep a file that has passed the limits, and lead to the page that says what is in it."""
    checker = next(one for one in types(request) if one.file_type == file_type)
    token = uploads.keep(file, file_name=file.name, checker=checker, uploaded_by=_name_of(request))
    audit.log(request, _find(pages, request, token).file, _("Uploaded the file."))
    return HttpResponseRedirect(_page_of(pages, token))


def _find(pages: BatchAdmin, request: HttpRequest, token: UUID) -> Upload:
    """Return an upload that the person may see; else it is as if it were not there."""
    permissions.demand(request, permissions.SUBMIT)
    upload = uploads.find(token)
    if upload is None or not (sees_type(request, upload.file.file_type) and _sees_batch(pages, request, upload.file)):
        raise Http404
    return upload


def _sees_batch(pages: BatchAdmin, request: HttpRequest, file: BatchFile) -> bool:
    """Tell whether a person may see the batch that a file has become, if it has become one."""
    return file.batch_id is None or permissions.find(pages.admin_site, request, file.batch_id) is not None


def _show(pages: BatchAdmin, request: HttpRequest, upload: Upload, form: ReasonForm | None = None) -> TemplateResponse:
    """Show what is in a file, how far it is loaded, or what became of it."""
    loading = Loading.of(upload)
    return _render(
        pages,
        request,
        "uploaded",
        upload.file.file_name,
        upload=upload,
        file=upload.file,
        checker=checkers.find(upload.file.file_type),
        loading=loading,
        elements=loading.elements(),
        uploaded=upload_words.uploaded(upload),
        outcome=upload_words.outcome(upload) if upload.file.is_accepted else "",
        page=_page_of(pages, upload.token),
        failure=masking.shown_text(request, None, _failure(upload)),
        rejection=masking.shown_text(request, None, upload.file.error_message),
        mismatch=_mismatch(request, upload.file),
        is_unserved=upload.is_loading and upload.load is not None and not report.is_served(upload.load),
        may_view=permissions.may(request, permissions.VIEW),
        may_download=permissions.may(request, VIEW_FILES) and permissions.may(request, permissions.DOWNLOAD),
        may_view_file=permissions.may(request, VIEW_FILES),
        is_for_others=not pages.has_confirm_permission(request, upload),
        form=form or ReasonForm(needs_reason=False),
        **(_contents(pages, request, upload) if upload.is_open else {}),
    )


def _contents(pages: BatchAdmin, request: HttpRequest, upload: Upload) -> dict[str, Any]:
    """Return what there is to know before a file is confirmed."""
    file, checker = upload.file, checkers.find(upload.file.file_type)
    if checker is None:
        return {"obstacle": _("No checker reads files of this type any more.")}
    found = preview.look(file, checker)
    route = found.route or checker.routes[0]
    batch = Batch(kind=Kind.BATCH, app=route.app, op=route.op, input_file=file.file_name, context={})
    earlier = _earlier(file)
    if found.declared is not None:
        found.declared["sums"] = masking.shown_sums(request, batch, found.declared["sums"])
    return {
        "found": found,
        "route": found.route if len(checker.routes) > 1 else None,
        "declared": upload_words.declared(found),
        "differences": masking.shown_differences(request, batch, "; ".join(found.mismatch)),
        "more_faults": upload_words.more_faults(found),
        "looked_at": upload_words.looked_at(found),
        "table": table(request, batch, found.rows),
        "faults": [(fault.line, masking.shown_text(request, batch, fault.reason)) for fault in found.faults],
        "earlier": earlier,
        "sees_earlier": earlier is not None and _sees_batch(pages, request, earlier),
        "obstacle": masking.shown_text(request, batch, found.reason),
        "may_confirm": not found.reason and earlier is None,
    }


def _mismatch(request: HttpRequest, file: BatchFile) -> str:
    """Say where the totals of an accepted file are not those of its batch."""
    return masking.shown_differences(request, file.batch, file.batch.totals_mismatch) if file.batch else ""


def _earlier(file: BatchFile) -> BatchFile | None:
    """Return the file of the same content that was accepted before."""
    return BatchFile.objects.primary().first_of(file.file_type, file.checksum).first()


def _failure(upload: Upload) -> str:
    """Say why loading came to nothing, though nothing is wrong with the file."""
    if upload.load is None or not upload.is_open:
        return ""
    answer = slow_queries.result(upload.load.pk)
    said = [text for message in answer.messages for text in message.vals]
    return words.short(said[0]) if said else _("It was aborted.")


def _confirm(pages: BatchAdmin, request: HttpRequest, upload: Upload) -> HttpResponse:
    """Have a file loaded, once."""
    if not pages.has_confirm_permission(request, upload):
        raise PermissionDenied
    form = ReasonForm(request.POST, needs_reason=False)
    if upload.is_open and not form.is_valid():
        return _show(pages, request, upload, form)
    if not upload.is_open:
        messages.info(request, _("%(file)s was confirmed before.") % {"file": upload.file})
    elif _contents(pages, request, upload).get("may_confirm"):
        _load(request, upload, form.cleaned_data["reason"])
    return HttpResponseRedirect(_page_of(pages, upload.token))


def _load(request: HttpRequest, upload: Upload, reason: str) -> None:
    """Submit the slow query and log it, both or neither."""
    store = database()

    def submit_and_log() -> None:
        with store.transaction():
            uploads.confirm(upload, requested_by=_name_of(request))
            audit.log(request, upload.file, _("Confirmed the upload."), reason=reason)

    try:
        store.again(submit_and_log)
    except InvalidInput as error:
        messages.error(request, f"{error}")


def _discard(pages: BatchAdmin, request: HttpRequest, upload: Upload) -> HttpResponse:
    """Delete a file that was not confirmed."""
    store = database()

    def discard_and_log() -> bool:
        with store.transaction():
            is_discarded = uploads.discard(upload)
            if is_discarded:
                audit.log(request, upload.file, _("Discarded the upload."))
        return is_discarded

    if not store.again(discard_and_log):
        messages.warning(request, _("%(file)s was confirmed or discarded before.") % {"file": upload.file})
        return HttpResponseRedirect(_page_of(pages, upload.token))
    messages.success(request, _("%(file)s was discarded.") % {"file": upload.file})
    return HttpResponseRedirect(_address(pages, "batch_upload"))


def _progress(request: HttpRequest) -> JsonResponse:
    """Answer what the page of an upload polls, in the form in which batches answer."""
    permissions.demand(request, permissions.SUBMIT)
    upload = _asked_for(request)
    if upload is None or not sees_type(request, upload.file.file_type):
        return JsonResponse({"batches": {}})
    return JsonResponse({"batches": {str(upload.token): Loading.of(upload).as_json()}})


def _asked_for(request: HttpRequest) -> Upload | None:
    try:
        return uploads.find(check_id(request.GET.get("ids", "")))
    except InvalidInput:
        return None


def _name_of(request: HttpRequest) -> str:
    user: Any = request.user
    return str(user.get_username())


def _render(pages: BatchAdmin, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
    request.current_app = pages.admin_site.name
    return TemplateResponse(
        request,
        f"alya_django/{template}.html",
        {
            **pages.admin_site.each_context(request),
            "title": title,
            "opts": pages.opts,
            "media": pages.media,
            **context,
        },
    )


def _page_of(pages: BatchAdmin, token: UUID) -> str:
    return _address(pages, "batch_upload_page", token)


def _address(pages: BatchAdmin, page: str, *arguments: Any) -> str:
    return reverse(f"admin:alya_django_{page}", args=arguments, current_app=pages.admin_site.name)
