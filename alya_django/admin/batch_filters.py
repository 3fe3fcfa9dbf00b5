"""Which batches a list can be narrowed to; every choice is written down or registered, none is looked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from alya_django.admin import permissions
from alya_django.admin.figures import STALLED_BEATS
from alya_django.admin.read_only import StaticFilter
from alya_django.conf import settings
from alya_django.models import BatchProgress
from alya_django.querysets import HELD, WITH_FAILURES
from alya_django.registry import registry
from alya_django.status import PENDING, Kind, Status

PERIODS = {
    "1h": (timedelta(hours=1), _("last hour")),
    "24h": (timedelta(hours=24), _("last 24 hours")),
    "7d": (timedelta(days=7), _("last 7 days")),
    "30d": (timedelta(days=30), _("last 30 days")),
}


class StateFilter(StaticFilter):
    title = _("state")
    parameter_name = "status"
    options = Status.choices


class AttentionFilter(StaticFilter):
    """Batches that somebody should look at."""

    title = _("attention")
    parameter_name = "attention"
    options = (("held", _("held")), ("stalled", _("stalled")), ("failures", _("has failures")))

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        choices = {"held": _held, "stalled": _stalled, "failures": _with_failures}
        return choices[value](queryset)


class KindFilter(StaticFilter):
    title = _("kind")
    parameter_name = "kind"
    options = Kind.choices


class OpFilter(StaticFilter):
    """The ops that this process has processors for, of apps that the person may see."""

    title = _("app / op")
    parameter_name = "op"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        ops = sorted({(entry.app, entry.op) for entry in registry if permissions.sees_app(request, entry.app)})
        return [(f"{app}/{op}", f"{app} / {op}") for app, op in ops]

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        app, op = value.split("/", 1)
        return queryset.filter(app=app, op=op)


class PeriodFilter(StaticFilter):
    title = _("requested")
    parameter_name = "since"
    options = tuple((period, label) for period, (_span, label) in PERIODS.items())

    def choose(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(requested_at__gte=Now() - PERIODS[value][0])


FILTERS = (StateFilter, AttentionFilter, KindFilter, OpFilter, PeriodFilter)


def _held(queryset: QuerySet[Any]) -> QuerySet[Any]:
    return queryset.filter(HELD)


def _stalled(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return running batches of which no row has ended for three heartbeats, as the list marks them."""
    long_ago = Now() - timedelta(seconds=STALLED_BEATS * settings.HEARTBEAT_SECONDS)
    moved = BatchProgress.objects.filter(batch=OuterRef("pk"), moved_at__gte=long_ago)
    running = Q(kind=Kind.BATCH, status=Status.IN_PROGRESS, held_at__isnull=True, started_at__lt=long_ago)
    return queryset.filter(running, ~Exists(moved))


def _with_failures(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return batches that have a failed row, also those that are not finished."""
    # A sum and not an Exists, for which the planner may read the slots of all batches.
    of_one = BatchProgress.objects.filter(batch=OuterRef("pk")).order_by().values("batch")
    so_far = Subquery(of_one.values(total=Sum("nfailed")))
    unfinished = Q(status__in=sorted(PENDING), failed_so_far__gt=0)
    found: QuerySet[Any] = queryset.alias(failed_so_far=so_far).filter(WITH_FAILURES | unfinished)
    return found
