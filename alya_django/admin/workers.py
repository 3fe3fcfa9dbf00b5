"""The pages of workers: which are alive, what each is at, and which ops wait for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import Count, Min, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

import alya_django
from alya_django.admin import permissions, words
from alya_django.admin.paging import KeysetMixin
from alya_django.admin.read_only import ReadOnlyAdmin
from alya_django.conf import settings
from alya_django.models import Batch, BatchRow, Worker
from alya_django.querysets import CLAIM_BITS, CLAIMS_PER_WORKER
from alya_django.status import PENDING, Kind

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

WAITING_MAX = 1_000
STATES: dict[str, StrPromise] = {
    "working": gettext_lazy("working"),
    "idle": gettext_lazy("idle"),
    "stopping": gettext_lazy("stopping"),
    "lost": gettext_lazy("lost"),
}


@dataclass(frozen=True)
class Hand:
    """Rows of one batch that a worker has in hand; of a batch that the person may not see, without its name."""

    rows: int
    since: datetime
    batch: Batch | None
    address: str


@dataclass(frozen=True)
class Unserved:
    """An op that no worker knows, with the batches that wait for one."""

    name: str
    kind: str
    waiting: str
    since: str


class WorkerListMixin(KeysetMixin):
    """A page of workers, with what each has in hand, and the ops that none of all workers knows."""

    unserved: list[Unserved]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        _attach_hands(self.model_admin, request, self.result_list)
        self.unserved = list(_unserved(self.model_admin, request))

    def empty_text(self) -> str:
        return _("No worker is alive: start one with manage.py alya_worker.")


class WorkerAdmin(ReadOnlyAdmin[Worker]):
    """Workers, oldest first."""

    change_list_mixin = WorkerListMixin
    ordering = ("id",)
    list_per_page = 25
    list_display = ("name", "state", "holds", "speed", "beat", "release", "served")
    fields = ("name", "state", "holds", "speed", "beat", "release", "served", "since", "host", "pid")
    readonly_fields = ("state", "holds", "speed", "beat", "release", "served", "since")

    class Media:
        css: ClassVar = {"all": ("alya_django/alya.css", "alya_django/rows.css")}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        """Return the workers with the time on the clock that their heartbeats are of."""
        return super().get_queryset(request).annotate(read_at=Now())

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Worker | None:
        worker = super().get_object(request, object_id, from_field)
        if worker is not None:
            _attach_hands(self, request, [worker])
        return worker

    @admin.display(description=gettext_lazy("state"))
    def state(self, worker: Any) -> str:
        look = _look(worker)
        return words.badge(look, words.ICONS[look], str(STATES[look]))

    @admin.display(description=gettext_lazy("has in hand"))
    def holds(self, worker: Any) -> str:
        """Say of which batch a worker has how many rows in hand, and since when."""
        in_hand = format_html_join(SafeString("<br>"), "{}", ((_in_hand(worker, hand),) for hand in worker.hands))
        return in_hand or words.NOTHING

    @admin.display(description=gettext_lazy("rows per minute"))
    def speed(self, worker: Worker) -> str:
        return words.number(round(worker.rate * 60))

    @admin.display(description=gettext_lazy("last heartbeat"))
    def beat(self, worker: Any) -> str:
        return _("%(span)s ago") % {"span": words.span((worker.read_at - worker.heartbeat).total_seconds())}

    @admin.display(description=gettext_lazy("version"))
    def release(self, worker: Worker) -> str:
        """Return the release that a worker runs, and point out one that is not the release of this page."""
        if worker.version == alya_django.__version__:
            return worker.version
        other = _("%(version)s, not %(own)s") % {"version": worker.version, "own": alya_django.__version__}
        return words.badge("other-release", "!", other)

    @admin.display(description=gettext_lazy("ops"))
    def served(self, worker: Any) -> str:
        """Name each app and op once, though a worker may serve it for batches and for slow queries."""
        return ", ".join(sorted(f"{app}/{op}" for app, op in worker.seen_ops)) or words.NOTHING

    @admin.display(description=gettext_lazy("started"))
    def since(self, worker: Worker) -> str:
        return words.moment(worker.started)


def _attach_hands(pages: admin.ModelAdmin[Any], request: HttpRequest, workers: list[Any]) -> None:
    """Let workers know what they have in hand, and what of their ops the person may see."""
    hands = _hands(pages, request, workers)
    for worker in workers:
        worker.hands = hands.get(worker.pk, [])
        worker.seen_ops = {(app, op) for _kind, app, op in worker.ops if permissions.sees_app(request, app)}


def _look(worker: Any) -> str:
    """Return the word for what a worker is at; who has fallen silent is lost, whatever it did last."""
    if worker.read_at - worker.heartbeat > timedelta(seconds=settings.WORKER_TTL_SECONDS):
        return "lost"
    if worker.is_stopping:
        return "stopping"
    return "working" if worker.hands else "idle"


def _in_hand(worker: Any, hand: Hand) -> str:
    rows = ngettext("%(count)s row", "%(count)s rows", hand.rows) % {"count": words.number(hand.rows)}
    span = words.span((worker.read_at - hand.since).total_seconds())
    if hand.batch is None:
        return _("%(rows)s of another app, for %(span)s") % {"rows": rows, "span": span}
    name = words.short(hand.batch.input_file) or f"{hand.batch.app}/{hand.batch.op}"
    batch = format_html('<a href="{}">{}</a>', hand.address, name) if hand.address else name
    return format_html(_("{rows} of {batch}, for {span}"), rows=rows, batch=batch, span=span)


def _hands(pages: admin.ModelAdmin[Any], request: HttpRequest, workers: Iterable[Worker]) -> dict[int, list[Hand]]:
    """Return what workers have in hand, by their numbers; each has a chunk at most, so that is soon counted."""
    numbers = sorted(worker.pk for worker in workers)
    if not numbers:
        return {}
    first, last = numbers[0] * CLAIMS_PER_WORKER, (numbers[-1] + 1) * CLAIMS_PER_WORKER
    claimed = BatchRow.objects.filter(claim__gte=first, claim__lt=last).order_by("claim").values_list("claim", "batch")
    counted = list(claimed.annotate(rows=Count("pk"), since=Min("claimed_at")))
    seen = permissions.seen(pages.admin_site, request, {batch_id for _claim, batch_id, *_counts in counted})
    batches = {batch.pk: batch for batch in seen}
    may_view = permissions.may(request, permissions.VIEW)
    hands: dict[int, list[Hand]] = {}
    for claim, batch_id, rows, since in counted:
        hand = Hand(rows, since, batches.get(batch_id), _page_of(pages, batch_id) if may_view else "")
        hands.setdefault((claim or 0) >> CLAIM_BITS, []).append(hand)
    return hands


def _page_of(pages: admin.ModelAdmin[Any], batch_id: UUID) -> str:
    return reverse("admin:alya_django_batch_change", args=(batch_id,), current_app=pages.admin_site.name)


def _unserved(pages: admin.ModelAdmin[Any], request: HttpRequest) -> Iterator[Unserved]:
    """Yield the ops that pending batches wait for and no worker knows, as far as a few of these batches tell."""
    pending = permissions.listed(pages.admin_site, request).filter(status__in=sorted(PENDING))
    waiting = pending.of_none(Worker.objects.alive().ops()).unheld()
    since: dict[tuple[str, str, str], list[datetime]] = {}
    for kind, app, op, requested_at in waiting.values_list("kind", "app", "op", "requested_at")[:WAITING_MAX]:
        since.setdefault((kind, app, op), []).append(requested_at)
    is_all = sum(map(len, since.values())) < WAITING_MAX
    for (kind, app, op), times in sorted(since.items()):
        count = words.number(len(times)) if is_all else _("%(count)s or more") % {"count": words.number(len(times))}
        yield Unserved(f"{app}/{op}", str(Kind(kind).label), count, words.moment(min(times)))
