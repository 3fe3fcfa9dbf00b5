"""
Statements for people and programs: ask, try later, get the result, download the file.

Every page is also JSON for whoever prefers it (``Accept: application/json``), in one form:
``{"status": "success" or "error", "data": {...}, "messages": [...]}``.
"""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from alya_django import AlreadyDone, ErrorMessage, NotFound, QueryAnswer, Status, slow_queries
from example_project.bank.forms import StatementForm
from example_project.bank.models import Statement

TRY_LATER = ErrorMessage("trylater", msgid=201)
ABORTED = ErrorMessage("aborted", msgid=202)
POLL_SECONDS = 1
LISTED = 20


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def statements(request: HttpRequest) -> HttpResponse:
    """Show the form and the statements asked for so far; ask for one more."""
    form = StatementForm(request.POST or None)
    if form.is_valid():
        return _accepted(request, ask(request.user, form))
    status = 400 if form.is_bound else 200
    if form.is_bound and _wants_json(request):
        return _envelope(*(ErrorMessage("invalid", field=field) for field in form.errors), status=status)
    asked = Statement.objects.filter(owner=request.user).select_related("account")[:LISTED]
    return render(request, "bank/statements.html", {"form": form, "asked": asked}, status=status)


def ask(user: Any, form: StatementForm) -> UUID:
    """Submit the slow query and keep whose it is: both, or neither."""
    with transaction.atomic():
        query_id = slow_queries.submit("bank", "statement", form.input(), requested_by=user.get_username())
        Statement.objects.create(
            query_id=query_id,
            owner=user,
            account=form.cleaned_data["account"],
            first_day=form.cleaned_data["first_day"],
            last_day=form.cleaned_data["last_day"],
        )
    return query_id


@login_required
@never_cache
@require_safe
def statement(request: HttpRequest, query_id: UUID) -> HttpResponse:
    """Show what became of a statement: try later, the result, or why there is none."""
    asked = get_object_or_404(Statement, pk=query_id, owner=request.user)
    answer = slow_queries.result(query_id)
    if _wants_json(request):
        return _as_json(query_id, answer)
    context = {"asked": asked, "answer": answer, "poll_seconds": POLL_SECONDS}
    return render(request, "bank/statement.html", context, status=202 if answer.try_later else 200)


def _as_json(query_id: UUID, answer: QueryAnswer) -> JsonResponse:
    if answer.try_later:
        return _envelope(TRY_LATER, status=202, headers={"Retry-After": str(POLL_SECONDS)})
    if answer.status is Status.ABORTED:
        return _envelope(ABORTED)
    files = {name: reverse("bank:download", args=[query_id, name]) for name in answer.output_files}
    return _envelope(*answer.messages, data={"result": answer.result, "files": files})


@login_required
@require_safe
def download(request: HttpRequest, query_id: UUID, name: str) -> FileResponse:
    """Send an output file, as a stream."""
    get_object_or_404(Statement, pk=query_id, owner=request.user)
    try:
        file = slow_queries.open_output(query_id, name)
    except NotFound:
        raise Http404(f"There is no {name} yet, or none at all.") from None
    return FileResponse(file, as_attachment=True, filename=name)


@login_required
@require_POST
def cancel(request: HttpRequest, query_id: UUID) -> HttpResponse:
    """Stop a statement that nobody needs any more; one that is ready stays."""
    get_object_or_404(Statement, pk=query_id, owner=request.user)
    try:
        slow_queries.abort(query_id)
    except AlreadyDone:
        messages.info(request, "It was too late to cancel: the answer is here.")
    return redirect("bank:statement", query_id)


def _wants_json(request: HttpRequest) -> bool:
    return request.get_preferred_type(["text/html", "application/json"]) == "application/json"


def _accepted(request: HttpRequest, query_id: UUID) -> HttpResponse:
    url = reverse("bank:statement", args=[query_id])
    if _wants_json(request):
        return _envelope(status=202, data={"id": str(query_id), "url": url}, headers={"Location": url})
    return redirect(url)


def _envelope(*reasons: ErrorMessage, data: Any = None, **response: Any) -> JsonResponse:
    """Return the answer to a program; with a reason it is an error, and has no data."""
    content = {
        "status": "error" if reasons else "success",
        "data": {} if reasons else data or {},
        "messages": [reason.as_json() for reason in reasons],
    }
    return JsonResponse(content, **response)
