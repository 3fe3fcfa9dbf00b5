"""What the page of one batch says of it: how it goes, what happened when, who works on it, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from alya_django.admin import asked, figures, live, words
from alya_django.admin.asked import Asked
from alya_django.admin.figures import Figures
from alya_django.models import Batch, BatchFile, BatchRow, Worker
from alya_django.status import PENDING, Kind, Status
from alya_django.validation import OWN_APP

CLAIMED_MAX = 1_000
CHILDREN_MAX = 20
FILES_MAX = 20


@dataclass(frozen=True)
class Event:
    """Something that happened to a batch."""

    at: datetime
    text: str

    @property
    def when(self) -> str:
        return words.moment(self.at)


@dataclass(frozen=True)
class Hands:
    """The rows that one worker has in hand."""

    worker: str
    rows: int
    span: str


@dataclass(frozen=True)
class Report:
    """The parts of the page, each empty where there is nothing to say."""

    figures: Figures
    events: list[Event]
    errors: dict[str, str]
    hands: list[Hands]
    has_more_hands: bool
    asked: list[Asked]
    children: list[Batch]
    has_more_children: bool
    received: list[BatchFile]
    files: list[tuple[str, str]]
    warnings: list[str]

    @property
    def is_moving(self) -> bool:
        return not self.figures.is_final

    @property
    def live(self) -> dict[str, SafeString]:
        """The texts that are renewed, by their names with underscores."""
        texts = {name.replace("-", "_"): live.text(self.figures, name) for name in live.TEXTS}
        return {**texts, "badge": live.badge(self.figures), "bar": live.bar(self.figures)}


def make(batch: Batch, errors: Mapping[str, int], seen: Callable[[Collection[UUID]], list[Batch]]) -> Report:
    """
    Report on a batch.

    Args:
        errors: How many of its rows have failed with each errcode.
        seen: What finds those of some batches that the person may see.
    """
    found = figures.of([batch])
    claimed = _claimed(batch)
    family = list(batch.children.order_by("-requested_at", "id")[: CHILDREN_MAX + 1])
    retries = [child for child in family[:CHILDREN_MAX] if child.kind == Kind.BATCH]
    known = {child.pk for child in seen([child.pk for child in retries])}
    return Report(
        figures=found[batch.pk],
        events=sorted(_events(batch), key=lambda event: event.at),
        errors={code: words.number(count) for code, count in errors.items()},
        hands=list(_hands(claimed[:CLAIMED_MAX], found[batch.pk].read_at)),
        has_more_hands=len(claimed) > CLAIMED_MAX,
        asked=asked.by([query for query in family[:CHILDREN_MAX] if query.app == OWN_APP]),
        children=[child for child in retries if child.pk in known],
        has_more_children=len(family) > CHILDREN_MAX,
        received=list(
            batch.files.order_by("pk").only("batch", "file_name", "file_type", "size", "nfaulty")[:FILES_MAX]
        ),
        files=[(name, _size(file.size)) for name, file in sorted(batch.saved_files().items())],
        warnings=list(_warnings(batch)),
    )


def is_served(batch: Batch) -> bool:
    return (batch.kind, batch.app, batch.op) in Worker.objects.alive().ops()


def _events(batch: Batch) -> Iterator[Event]:
    who = _(" by %(who)s") % {"who": batch.requested_by} if batch.requested_by else ""
    yield Event(batch.requested_at, _("submitted%(who)s") % {"who": who})
    if batch.started_at:
        yield Event(batch.started_at, _("started"))
    if batch.held_at:
        yield Event(batch.held_at, _("held"))
    if batch.done_at:
        took = words.took(batch.started_at, batch.done_at)
        state = batch.get_status_display()
        yield Event(batch.done_at, _("%(state)s after %(took)s") % {"state": state, "took": took} if took else state)
    if batch.marked_done_at:
        yield Event(batch.marked_done_at, _("marked done"))


def _warnings(batch: Batch) -> Iterator[str]:
    """Yield what keeps a batch from going on, or went wrong at its end."""
    if batch.is_held:
        yield _("Held: %(reason)s Nothing is claimed from it until it is released.") % {"reason": batch.hold_reason}
    if batch.status in PENDING and not batch.is_held and not is_served(batch):
        yield _("No live worker serves %(app)s / %(op)s: start one that does.") % {"app": batch.app, "op": batch.op}
    if batch.totals_mismatch:
        yield _("Its totals do not agree: %(mismatch)s") % {"mismatch": batch.totals_mismatch}
    if batch.mark_done_error:
        yield _("Its mark_done failed: %(error)s") % {"error": batch.mark_done_error.strip().splitlines()[-1]}


def _size(size: int | None) -> str:
    return "" if size is None else filesizeformat(size)


def _claimed(batch: Batch) -> list[tuple[str | None, datetime | None]]:
    """Return by whom and since when rows are in progress; one more than are shown tells that there are more."""
    if batch.status not in PENDING:
        return []
    rows = BatchRow.objects.filter(batch=batch.pk, status=Status.IN_PROGRESS, claim__isnull=False)
    return list(rows.order_by("claim").values_list("done_by", "claimed_at")[: CLAIMED_MAX + 1])


def _hands(claimed: Iterable[tuple[str | None, datetime | None]], now: float) -> Iterator[Hands]:
    by_worker: dict[str, list[float]] = {}
    for worker, claimed_at in claimed:
        by_worker.setdefault(worker or words.NOTHING, []).append(figures.seconds(claimed_at) if claimed_at else now)
    for worker, times in sorted(by_worker.items()):
        yield Hands(worker, len(times), words.span(now - min(times)))
