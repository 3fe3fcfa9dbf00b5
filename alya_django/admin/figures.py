"""How far batches have come, how fast they go and how long they will take: read once a second for all who look."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.cache.backends.base import BaseCache
from django.db.models import Max, OuterRef, Subquery, Sum
from django.db.models.functions import Now

from alya_django import cached_json, status_cache
from alya_django.conf import settings
from alya_django.models import Batch, BatchProgress
from alya_django.status import PENDING, Kind, Status

FRESH_SECONDS = 1
WINDOW_SECONDS = 60
SAMPLE_SECONDS = 5
SPAN_SECONDS = 10
GUESS_AFTER_SECONDS = 30
STALLED_BEATS = 3
PASSED_SECONDS_MIN = 0.001

Sample = tuple[float, int]
"""When it was looked, in seconds since 1970 by the database's clock, and how many rows had ended by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    A batch in figures, at one moment, to be shown: who may see it, and what may be done to it, is for the database to
    say. Times are seconds since 1970 by the database's clock.
    """

    id: str
    kind: str
    status: str
    nrows: int
    nsuccess: int
    nfailed: int
    naborted: int
    nput_off: int
    held: bool
    read_at: float
    started_at: float | None
    moved_at: float | None
    samples: tuple[Sample, ...] = ()

    @property
    def is_final(self) -> bool:
        return Status(self.status).is_final

    @property
    def is_running(self) -> bool:
        """Whether workers are at it, as far as its state tells."""
        return self.status == Status.IN_PROGRESS and not self.held

    @property
    def ended(self) -> int:
        return self.nsuccess + self.nfailed + self.naborted

    @property
    def left(self) -> int:
        return max(self.nrows - self.ended, 0)

    @property
    def idle_seconds(self) -> float:
        """How long ago a row ended last, or the batch began; 0 where nothing is to be expected."""
        if not self.is_running:
            return 0.0
        return max(0.0, self.read_at - max(self.started_at or 0.0, self.moved_at or 0.0))

    @property
    def is_stalled(self) -> bool:
        """Whether no row of a running batch has ended for three heartbeats; a slow query has but one."""
        return self.kind == Kind.BATCH and self.idle_seconds > STALLED_BEATS * settings.HEARTBEAT_SECONDS

    @property
    def rate(self) -> float | None:
        """Rows a second in the last minute, or since the start where nobody has looked; None where nothing moves."""
        rates = self._rates()
        return rates[1] if rates else None

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        """The least and the most that is left by the last minute's slower and faster half; None for no guess yet."""
        rates = self._rates()
        if not rates or self.read_at - (self.started_at or self.read_at) < GUESS_AFTER_SECONDS:
            return None
        slow, _, fast = rates
        return self.left / fast, self.left / slow

    def _rates(self) -> tuple[float, float, float] | None:
        """Return the slowest, the mean and the fastest rate, all above 0."""
        if not self.is_running or self.is_stalled or not self.left:
            return None
        seen = (*self.samples, (self.read_at, self.ended))
        if seen[-1][0] - seen[0][0] < SPAN_SECONDS:
            seen = ((self.started_at or self.read_at, 0), seen[-1])
        middle = seen[len(seen) // 2]
        mean = _rate(seen[0], seen[-1])
        halves = [rate for rate in (_rate(seen[0], middle), _rate(middle, seen[-1])) if rate > 0]
        return (min(mean, *halves), mean, max(mean, *halves)) if mean > 0 else None


def read(batch_ids: Iterable[UUID]) -> dict[UUID, Figures]:
    """
    Return the figures of those batches that exist.

    They are a second old at most, however many ask: of all who find them older one asks the database, the others get
    what there is. Without a cache everybody asks.
    """
    ids = list(dict.fromkeys(batch_ids))
    found, stale = _load(ids)
    if len(found) < len(ids):
        fresh = _ask([batch_id for batch_id in ids if batch_id not in found], stale)
        _store(fresh)
        found.update(fresh)
    return found


def of(batches: Iterable[Batch]) -> dict[UUID, Figures]:
    """Return the figures of batches; those that have ended have them at hand."""
    listed = list(batches)
    found = read(batch.pk for batch in listed if batch.done_at is None)
    return found | {batch.pk: _of_finished(batch, batch.done_at) for batch in listed if batch.done_at is not None}


def forget(batch_id: UUID) -> None:
    """Read a batch anew the next time: something was done to it."""
    status_cache.access(settings.CACHE, lambda cache: cache.delete_many([_key(batch_id), _turn_key(batch_id)]))


def seconds(at: datetime) -> float:
    """Return a time as seconds since 1970; without a time zone, all are alike wrong."""
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _of_finished(batch: Batch, done_at: datetime) -> Figures:
    return Figures(
        id=str(batch.pk),
        kind=batch.kind,
        status=batch.status,
        nrows=batch.nrows,
        held=False,
        read_at=seconds(done_at),
        started_at=None if batch.started_at is None else seconds(batch.started_at),
        moved_at=None,
        nsuccess=batch.nsuccess or 0,
        nfailed=batch.nfailed or 0,
        naborted=batch.naborted or 0,
        nput_off=0,
    )


def _key(batch_id: UUID) -> str:
    return f"ALYA_{{{batch_id}}}_FIGURES"


def _turn_key(batch_id: UUID) -> str:
    """Return the key of who asks the database in this second."""
    return f"ALYA_{{{batch_id}}}_FIGURES_TURN"


def _load(ids: list[UUID]) -> tuple[dict[UUID, Figures], dict[UUID, Figures]]:
    """Return what the cache has that is fresh, or that another is just about to renew; and what it has at all."""
    cached: dict[UUID, Figures] = {}
    for batch_id, text in (status_cache.access(settings.CACHE, lambda cache: _texts(cache, ids)) or {}).items():
        figures = _from_text(batch_id, text)
        if figures is not None:
            cached[batch_id] = figures
    return {key: value for key, value in cached.items() if value.is_final or not _take_turn(key)}, cached


def _texts(cache: BaseCache, ids: list[UUID]) -> dict[UUID, Any]:
    keys = {_key(batch_id): batch_id for batch_id in ids}
    return {keys[key]: text for key, text in cache.get_many(keys).items()}


def _take_turn(batch_id: UUID) -> bool:
    """Tell whether it is for us to ask the database; where the cache has just failed it is."""
    taken = status_cache.access(settings.CACHE, lambda cache: cache.add(_turn_key(batch_id), 1, FRESH_SECONDS))
    return taken is not False


def _from_text(batch_id: UUID, text: object) -> Figures | None:
    """Return figures from the cache; None if what stands there is none, as another version may have left it."""
    try:
        stored = cached_json.read(text)
        return Figures(
            id=str(batch_id),
            kind=Kind(stored["kind"]).value,
            status=Status(stored["status"]).value,
            nrows=cached_json.count(stored["nrows"]),
            nsuccess=cached_json.count(stored["nsuccess"]),
            nfailed=cached_json.count(stored["nfailed"]),
            naborted=cached_json.count(stored["naborted"]),
            nput_off=cached_json.count(stored["nput_off"]),
            held=cached_json.part(bool, stored["held"]),
            read_at=cached_json.moment(stored["read_at"]),
            started_at=_moment(stored["started_at"]),
            moved_at=_moment(stored["moved_at"]),
            samples=tuple((cached_json.moment(at), cached_json.count(ended)) for at, ended in stored["samples"]),
        )
    except Exception:
        return None


def _moment(value: object) -> float | None:
    return None if value is None else cached_json.moment(value)


def _ask(ids: list[UUID], earlier: Mapping[UUID, Figures]) -> dict[UUID, Figures]:
    """Return figures as the database has them, with what was seen in the last minute."""
    # By batch, each in a query of its own: joined, the planner may read the slots of all batches there ever were.
    slots = BatchProgress.objects.filter(batch=OuterRef("pk")).order_by().values("batch")
    batches = Batch.objects.filter(pk__in=ids).annotate(
        now=Now(),
        moved_at=Subquery(slots.values(last=Max("moved_at"))),
        success_so_far=Subquery(slots.values(total=Sum("nsuccess"))),
        failed_so_far=Subquery(slots.values(total=Sum("nfailed"))),
        put_off=Subquery(slots.values(total=Sum("nput_off"))),
    )
    names = (
        "id",
        "kind",
        "status",
        "nrows",
        "nsuccess",
        "nfailed",
        "naborted",
        "held_at",
        "started_at",
    )
    rows = batches.values(*names, "now", "moved_at", "success_so_far", "failed_so_far", "put_off")
    return {row["id"]: _figures(row, earlier.get(row["id"])) for row in rows.order_by()}


def _figures(row: dict[str, Any], earlier: Figures | None) -> Figures:
    is_counted = row["nsuccess"] is not None
    now = seconds(row["now"])
    return Figures(
        id=str(row["id"]),
        kind=row["kind"],
        status=row["status"],
        nrows=row["nrows"],
        nsuccess=row["nsuccess"] if is_counted else row["success_so_far"] or 0,
        nfailed=row["nfailed"] if is_counted else row["failed_so_far"] or 0,
        naborted=row["naborted"] or 0,
        nput_off=0 if is_counted else row["put_off"] or 0,
        held=row["held_at"] is not None and row["status"] in PENDING,
        read_at=now,
        started_at=row["started_at"] and seconds(row["started_at"]),
        moved_at=row["moved_at"] and seconds(row["moved_at"]),
        samples=() if earlier is None else _samples(earlier, now),
    )


def _samples(earlier: Figures, now: float) -> tuple[Sample, ...]:
    """Return what was seen within the window, one look every few seconds."""
    if not earlier.is_running:
        return ()
    kept = [sample for sample in earlier.samples if sample[0] >= now - WINDOW_SECONDS]
    if not kept or earlier.read_at - kept[-1][0] >= SAMPLE_SECONDS:
        kept.append((earlier.read_at, earlier.ended))
    return tuple(sample for sample in kept if sample[0] >= now - WINDOW_SECONDS)


def _store(fresh: Mapping[UUID, Figures]) -> None:
    running = {_key(batch_id): json.dumps(asdict(one)) for batch_id, one in fresh.items() if not one.is_final}
    final = {_key(batch_id): json.dumps(asdict(one)) for batch_id, one in fresh.items() if one.is_final}
    turns = {_turn_key(batch_id): 1 for batch_id, one in fresh.items() if not one.is_final}
    if running:
        status_cache.access(settings.CACHE, lambda cache: cache.set_many(running, WINDOW_SECONDS))
        status_cache.access(settings.CACHE, lambda cache: cache.set_many(turns, FRESH_SECONDS))
    if final:
        status_cache.access(settings.CACHE, lambda cache: cache.set_many(final, settings.STATUS_CACHE_SECONDS))


def _rate(first: Sample, last: Sample) -> float:
    passed = last[0] - first[0]
    return (last[1] - first[1]) / passed if passed >= PASSED_SECONDS_MIN else 0.0
