"""How people act on batches: each act says what it will do, asks once more, is carried out, and is logged."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from alya_django import own_queries
from alya_django.admin import asked, audit, figures, permissions
from alya_django.admin.acts import ACTS, Act, ByWorker
from alya_django.exceptions import InvalidInput, InvalidState, NotFound, WrongType
from alya_django.models import Batch, database
from alya_django.status import Status
from alya_django.validation import check_id

if TYPE_CHECKING:
    from alya_django.admin.batches import BatchAdmin

REASON_CHARS_MAX = 300
BATCHES_MAX = 100
ROWS_AT_ONCE_MAX = 500
"""An act on more rows than a request should do itself."""
ABOUT_TO = {
    own_queries.ABORT: gettext_lazy("A worker is about to abort it."),
    own_queries.RETRY: gettext_lazy("A worker is about to retry its failed rows."),
}
CONFIRMED = "confirmed"


class ReasonForm(forms.Form):
    """Why somebody does it, for the log."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=REASON_CHARS_MAX,
        required=False,
        help_text=gettext_lazy("It is kept in the history of the batch."),
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )

    def __init__(self, *args: Any, needs_reason: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = needs_reason


def allowed(model_admin: BatchAdmin, request: HttpRequest, batch: Batch, under_way: Collection[str]) -> list[Act]:
    """Return what a person may do to a batch in its state, and with what workers are about to do to it."""
    possible = [act for act in ACTS if not _obstacle(act, batch, under_way)]
    return [act for act in possible if _may(model_admin, request, act, batch)]


def is_allowed(model_admin: BatchAdmin, request: HttpRequest, act: Act, batch: Batch) -> bool:
    """Tell whether a person may do something to a batch, and it can be done."""
    return _may(model_admin, request, act, batch) and not act.obstacle(batch)


def answer_one(
    model_admin: BatchAdmin, request: HttpRequest, act: Act, batch: Batch, *, back: str = ""
) -> HttpResponse:
    """Answer from the page of one batch, or of something in it: ask before, and lead back after."""
    if not _may(model_admin, request, act, batch):
        raise PermissionDenied
    back = back or model_admin.page_of(batch.pk)
    return _answer(model_admin, request, act, [batch], back) or HttpResponseRedirect(back)


def answer_many(model_admin: BatchAdmin, request: HttpRequest, act: Act) -> HttpResponse | None:
    """
    Answer from the list: ask before, and return None after, which leads back.

    Only what was ticked one by one: all that a filter would find was never shown.
    """
    ids = _ids(request.POST.getlist(ACTION_CHECKBOX_NAME)[:BATCHES_MAX])
    chosen = list(model_admin.get_queryset(request).filter(pk__in=ids).prefetch_related("progress"))
    if not all(_may(model_admin, request, act, batch) for batch in chosen):
        raise PermissionDenied
    return _answer(model_admin, request, act, chosen, request.get_full_path())


def _may(model_admin: BatchAdmin, request: HttpRequest, act: Act, batch: Batch) -> bool:
    may: bool = getattr(model_admin, f"has_{act.name}_permission")(request, batch)
    return may and permissions.shows(model_admin.admin_site, request, batch)


def _answer(
    model_admin: BatchAdmin, request: HttpRequest, act: Act, chosen: list[Batch], back: str
) -> HttpResponse | None:
    is_confirmed = request.method == "POST" and CONFIRMED in request.POST
    form = ReasonForm(request.POST if is_confirmed else None, needs_reason=act.needs_reason)
    if not is_confirmed or not form.is_valid():
        return _ask(model_admin, request, act, chosen, form, back)
    served = _served(act)
    for batch in chosen:
        _carry_out(request, act, batch, form.cleaned_data["reason"], served)
    return None


def _ask(
    model_admin: BatchAdmin, request: HttpRequest, act: Act, chosen: list[Batch], form: ReasonForm, back: str
) -> TemplateResponse:
    """Return the page that says what will happen."""
    under_way, served = asked.under_way(chosen), _served(act)
    obstacles = {batch.pk: _obstacle(act, batch, under_way[batch.pk]) for batch in chosen}
    will = [(batch, _what_will_happen(act, batch, served)) for batch in chosen if not obstacles[batch.pk]]
    context = {
        **model_admin.admin_site.each_context(request),
        "title": act.question,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "act": act,
        "will": will,
        "will_not": [(batch, obstacles[batch.pk]) for batch in chosen if obstacles[batch.pk]],
        "form": form,
        "checkbox_name": ACTION_CHECKBOX_NAME,
        "action": request.POST.get("action"),
        "confirmed_name": CONFIRMED,
        "back": back,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "alya_django/confirm.html", context)


def _obstacle(act: Act, batch: Batch, under_way: Collection[str]) -> str:
    """Return why an act cannot be done now; empty where it can."""
    return act.obstacle(batch) or (str(ABOUT_TO[act.gives_way_to]) if act.gives_way_to in under_way else "")


def _served(act: Act) -> set[str]:
    """Return the ops that a worker would answer now, for all batches of an act at once."""
    return own_queries.served() if act.by_worker else set()


def _what_will_happen(act: Act, batch: Batch, served: Collection[str]) -> str:
    by_worker = _for_worker(act, batch, served)
    return f"{act.effect(batch)} {by_worker.promise}" if by_worker else act.effect(batch)


def _for_worker(act: Act, batch: Batch, served: Collection[str]) -> ByWorker | None:
    """Return how an act is left to a worker; None if it is small, or no worker is there: then the request does it."""
    by_worker = act.by_worker
    if by_worker is None or by_worker.op not in served or by_worker.count(batch) <= ROWS_AT_ONCE_MAX:
        return None
    return by_worker


def _carry_out(request: HttpRequest, act: Act, batch: Batch, reason: str, served: Collection[str]) -> None:
    """Do it and log it, both or none; what cannot be done any more is said."""
    store = database()

    def do_and_log() -> str:
        with store.transaction():
            done = _do(request, act, batch, reason, served)
            audit.log(request, batch, done, reason=reason)
        return done

    try:
        messages.success(request, f"{batch}: {store.again(do_and_log)}")
    except InvalidState as refusal:
        text = _("%(batch)s: nothing was done, its state is %(state)s by now.")
        messages.warning(request, text % {"batch": batch, "state": Status(refusal.status).label})
    except WrongType:
        messages.warning(request, f"{batch}: {act.obstacle(batch)}")
    except InvalidInput:
        # The line of a retry: another one has taken it since the page asked.
        messages.warning(request, _("%(batch)s: nothing was done, another retry has the line.") % {"batch": batch})
    except NotFound:
        messages.warning(request, _("%(batch)s is there no more.") % {"batch": batch})
    figures.forget(batch.pk)


def _do(request: HttpRequest, act: Act, batch: Batch, reason: str, served: Collection[str]) -> str:
    by_worker = _for_worker(act, batch, served)
    if by_worker:
        return by_worker.ask(batch, request.user.get_username(), reason)
    if act.by_worker:
        asked.withdraw(batch, act.by_worker.op)
    return act.do(batch)


def _ids(given: Iterable[str]) -> list[Any]:
    ids = []
    for text in given:
        try:
            ids.append(check_id(text))
        except InvalidInput:
            continue
    return ids
