"""What people do to batches: each act says what it will do, asks once more, does it by a verb, and is logged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from alya_django import batches, own_queries, slow_queries
from alya_django.admin import asked, audit, figures, permissions
from alya_django.admin.words import number
from alya_django.exceptions import InvalidInput, InvalidState, NotFound
from alya_django.models import Batch, BatchRow, database
from alya_django.status import Kind, Status
from alya_django.validation import check_id

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

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


@dataclass(frozen=True)
class Act:
    """
    Something to do to a batch.

    ``obstacle`` says why it cannot be done, and is empty where it can; ``effect`` says what it will do, and ``do``
    does it and says what it has done. What is too much for a request, ``by_worker`` leaves to others. It gives way to
    what a worker is about to do, an op of Alya's own.
    """

    name: str
    permission: str
    label: StrPromise
    question: StrPromise
    obstacle: Callable[[Batch], str]
    effect: Callable[[Batch], str]
    do: Callable[[Batch], str]
    needs_reason: bool = False
    by_worker: ByWorker | None = None
    gives_way_to: str = ""


@dataclass(frozen=True)
class ByWorker:
    """
    How an act is left to a worker.

    ``op`` is that of Alya's own slow query, ``count`` says on how many rows the act is, ``promise`` what will happen,
    and ``ask`` asks for it, for somebody and a reason, and says what it has asked for.
    """

    op: str
    count: Callable[[Batch], int]
    promise: StrPromise
    ask: Callable[[Batch, str, str], str]


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


def retry_line(line: int) -> Act:
    """Return the act that repeats one line of a batch."""
    return Act(
        RETRY.name,
        RETRY.permission,
        gettext_lazy("Retry this line"),
        gettext_lazy("Retry this line?"),
        lambda batch: _retry_line_obstacle(batch, line),
        lambda batch: _retry_line_effect(line),
        lambda batch: _retry(batch, [line]),
    )


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
    return may


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


def _abort_obstacle(batch: Batch) -> str:
    return _("It has ended already.") if Status(batch.status).is_final else ""


def _abort_effect(batch: Batch) -> str:
    left = _not_ended(batch)
    ended = batch.nrows - left
    return " ".join(
        [
            ngettext(
                "%(count)s row that has not ended will be aborted, for good; what a worker is just doing for it is dropped.",  # noqa: E501
                "%(count)s rows that have not ended will be aborted, for good; what workers are just doing for them is dropped.",  # noqa: E501
                left,
            )
            % {"count": number(left)},
            ngettext(
                "%(count)s row that has ended stays as it is.",
                "%(count)s rows that have ended stay as they are.",
                ended,
            )
            % {"count": number(ended)},
            _("There will be no output files."),
        ]
    )


def _abort(batch: Batch) -> str:
    verbs = batches if batch.kind == Kind.BATCH else slow_queries
    return asked.aborted(verbs.abort(batch.pk).naborted)


def _ask_to_abort(batch: Batch, who: str, reason: str) -> str:
    held_because = _("%(who)s has asked to abort it (%(reason)s).") % {"who": who, "reason": reason}
    own_queries.ask_to_abort(batch.pk, requested_by=who, reason=held_because)
    left = _not_ended(batch)
    text = ngettext("Asked a worker to abort %(count)s row.", "Asked a worker to abort %(count)s rows.", left)
    return text % {"count": number(left)}


def _release_obstacle(batch: Batch) -> str:
    return "" if batch.status == Status.WAIT or batch.is_held else _("It is neither waiting nor held.")


def _release_effect(batch: Batch) -> str:
    counts = _counts(batch)
    left = _not_ended(batch)
    effect = ngettext(
        "%(count)s row can be claimed by workers at once.", "%(count)s rows can be claimed by workers at once.", left
    ) % {"count": number(left)}
    if not batch.is_held:
        return effect
    forgiven = ngettext(
        "The %(count)s failure so far is forgiven: only rows that fail from now on count towards its limit.",
        "The %(count)s failures so far are forgiven: only rows that fail from now on count towards its limit.",
        counts["nfailed"],
    )
    return f"{effect} {forgiven % {'count': number(counts['nfailed'])}}"


def _release(batch: Batch) -> str:
    nrows = batches.release(batch.pk)
    return ngettext("Released %(count)s row.", "Released %(count)s rows.", nrows) % {"count": number(nrows)}


def _retry_obstacle(batch: Batch) -> str:
    if batch.kind != Kind.BATCH:
        return _("It is a slow query: ask again instead.")
    if not Status(batch.status).is_final:
        return _("It has not ended.")
    return "" if _to_retry(batch) else _("It has no row that failed or was aborted.")


def _retry_effect(batch: Batch) -> str:
    count = _to_retry(batch)
    effect = ngettext(
        "A child batch with its %(count)s failed or aborted row will be submitted, and starts at once.",
        "A child batch with its %(count)s failed or aborted rows will be submitted, and starts at once.",
        count,
    ) % {"count": number(count)}
    left_out = _("Lines that another retry has in hand, or has brought to success, are left out.")
    return f"{effect} {left_out}"


def _retry_line_obstacle(batch: Batch, line: int) -> str:
    obstacle = _retry_obstacle(batch)
    if obstacle:
        return obstacle
    can_be = BatchRow.objects.to_retry(batch).filter(line=line).order_by("line").values_list("line")[:1]
    return "" if can_be else _("It has not failed, or another retry has it in hand or has brought it to success.")


def _retry_line_effect(line: int) -> str:
    effect = _("A child batch with line %(line)s alone will be submitted, and starts at once.")
    return effect % {"line": number(line)}


def _retry(batch: Batch, lines: list[int] | None = None) -> str:
    child = batches.retry(batch.pk, lines=lines)
    return asked.retried(Batch.objects.primary().get(pk=child).nrows, child)


def _ask_to_retry(batch: Batch, who: str, reason: str) -> str:
    own_queries.ask_to_retry(batch.pk, requested_by=who)
    count = _to_retry(batch)
    text = ngettext("Asked a worker to retry %(count)s row.", "Asked a worker to retry %(count)s rows.", count)
    return text % {"count": number(count)}


def _not_ended(batch: Batch) -> int:
    return batch.nrows - sum(_counts(batch).values())


def _counts(batch: Batch) -> dict[str, int]:
    """Return how many rows have ended; of many batches the slots were fetched at once."""
    return batch.counts(batch.progress.all())


def _to_retry(batch: Batch) -> int:
    return (batch.nfailed or 0) + (batch.naborted or 0)


def _ids(given: Iterable[str]) -> list[Any]:
    ids = []
    for text in given:
        try:
            ids.append(check_id(text))
        except InvalidInput:
            continue
    return ids


ABORT = Act(
    "abort",
    permissions.ABORT,
    gettext_lazy("Abort"),
    gettext_lazy("Abort these rows?"),
    _abort_obstacle,
    _abort_effect,
    _abort,
    needs_reason=True,
    by_worker=ByWorker(
        own_queries.ABORT,
        _not_ended,
        gettext_lazy(
            "A worker will do it: once you have confirmed nothing more is claimed from the batch, and its page says "
            "what came of it."
        ),
        _ask_to_abort,
    ),
    gives_way_to=own_queries.ABORT,
)
RELEASE = Act(
    "release",
    permissions.RELEASE,
    gettext_lazy("Release"),
    gettext_lazy("Release these rows?"),
    _release_obstacle,
    _release_effect,
    _release,
    gives_way_to=own_queries.ABORT,
)
RETRY = Act(
    "retry",
    permissions.RETRY,
    gettext_lazy("Retry failed rows"),
    gettext_lazy("Retry these rows?"),
    _retry_obstacle,
    _retry_effect,
    _retry,
    by_worker=ByWorker(
        own_queries.RETRY,
        _to_retry,
        gettext_lazy("A worker will do it: the page of the batch says what came of it."),
        _ask_to_retry,
    ),
    gives_way_to=own_queries.RETRY,
)
ACTS = (RELEASE, RETRY, ABORT)
