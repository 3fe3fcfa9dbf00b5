"""What people can do to batches: what stands in the way of each act, what it will do, and the verb that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from alya_django import batches, own_queries, slow_queries
from alya_django.admin import asked, permissions
from alya_django.admin.words import number
from alya_django.models import Batch, BatchRow
from alya_django.status import Kind, Status

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise


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
