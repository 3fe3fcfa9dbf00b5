"""Pick a batch and take rows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple
from uuid import UUID

from django.db.models import Exists, F, TextField
from django.db.models.functions import Cast, Now

from alya_django.db import Database
from alya_django.engine.pace import Pace
from alya_django.models import Batch, BatchRow
from alya_django.querysets import BatchQuerySet, BatchRowQuerySet
from alya_django.registry import Key, Registration
from alya_django.status import Kind, Status

CLAIMS_PER_WORKER = 2**32
OLDEST_EVERY = 8
CANDIDATES = 5
# Decoded where a fault of it fails the row alone, and faster than by the model's field.
INPUT_TEXT = Cast("input", TextField())


class ClaimedRow(NamedTuple):
    """A row in the hands of this worker; its input is still JSON text, ``attempt`` counts this claim."""

    id: int
    line: int
    input: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one batch that one claim holds."""

    claim: int
    batch: Batch
    registration: Registration
    rows: list[ClaimedRow]


class Claimer:
    """
    Take chunks for one worker, of the ops it serves and that are usable just now.

    Slow queries go first, oldest first; after one, a chunk of a batch goes next if there is any. Among the
    batches goes the one whose ``turn`` is smallest, and every eighth time the oldest. ``met_locks`` tells that the
    last ``take`` passed rows over that somebody had locked: there is work, in a moment.
    """

    def __init__(
        self,
        store: Database,
        *,
        number: int,
        name: str,
        registrations: list[Registration],
        is_usable: Callable[[str], bool],
        pace: Pace,
    ) -> None:
        self._store = store
        self._number = number
        self._name = name
        self._registrations = {entry.key: entry for entry in registrations}
        self._is_usable = is_usable
        self._pace = pace
        self._claims = count(number * CLAIMS_PER_WORKER + 1)
        self._picks = count(1)
        self._latest_turn = 0.0
        self._last_lines: dict[UUID, int] = {}
        self._after_slow_query = False
        self.met_locks = False

    def take(self) -> Chunk | None:
        """Return the next chunk, None if there is nothing to claim now."""
        self.met_locks = False
        takers = [self._take_slow_query, self._take_batch_rows]
        if self._after_slow_query:
            takers.reverse()
        chunk = takers[0]() or takers[1]()
        self._after_slow_query = chunk is not None and chunk.batch.kind == Kind.SLOW_QUERY
        return chunk

    def _take_slow_query(self) -> Chunk | None:
        if not (scope := self._scope(Kind.SLOW_QUERY)):
            return None
        asked = BatchRow.objects.primary().of(scope).filter(line=0).defer("input").annotate(input_text=INPUT_TEXT)
        with self._store.transaction():
            row = asked.due().order_by("retry_at").lock_free_with_batch().first() or (
                asked.queued().order_by("id").lock_free_with_batch().first()
            )
            if row is None:
                return None
            claim = next(self._claims)
            BatchRow.objects.primary().filter(pk=row.pk).claim(claim, self._name)
            Batch.objects.primary().filter(pk=row.batch_id, status=Status.QUEUED).update(
                status=Status.IN_PROGRESS, started_at=Now()
            )
        text: str = row.input_text  # type: ignore[attr-defined]  # annotated above
        claimed = ClaimedRow(row.pk, row.line, text, row.attempts + 1)
        return Chunk(claim, row.batch, self._registration(row.batch), [claimed])

    def _take_batch_rows(self) -> Chunk | None:
        if not (scope := self._scope(Kind.BATCH)):
            return None
        for batch in self._candidates(Batch.objects.primary().runnable().of(scope)):
            if batch.status == Status.QUEUED and not Batch.objects.primary().filter(pk=batch.pk).start():
                self.met_locks = True
            elif chunk := self._take_rows(batch):
                return chunk
        return None

    def _candidates(self, batches: BatchQuerySet) -> Iterator[Batch]:
        """Yield the batches to try, best first."""
        by_age = next(self._picks) % OLDEST_EVERY == 0
        order = ("requested_at", "id") if by_age else ("turn", "requested_at", "id")
        batches = batches.defer("output_files", "mark_done_error", "hold_reason").order_by(*order)
        tried: list[UUID] = []
        while found := list(batches.exclude(pk__in=tried)[:CANDIDATES]):
            yield from found
            tried += [batch.pk for batch in found]

    def _take_rows(self, batch: Batch) -> Chunk | None:
        registration = self._registration(batch)
        wanted = self._pace.chunk_rows(registration)
        claim = next(self._claims)
        with self._store.transaction():
            if not self._store.enter(batch.pk):
                self.met_locks = True
                return None
            rows = self._lock_rows(batch, wanted)
            if rows:
                BatchRow.objects.primary().filter(pk__in=[row.id for row in rows]).claim(claim, self._name)
        is_drained = len(rows) < wanted and self._note_drained(batch)
        if not rows:
            self.met_locks = self.met_locks or not is_drained
            return None
        self._charge(batch, len(rows) * self._pace.seconds(registration))
        return Chunk(claim, batch, registration, rows)

    def _lock_rows(self, batch: Batch, wanted: int) -> list[ClaimedRow]:
        """
        Lock rows to claim: requeued ones that are due, else in the order of lines from where this worker was.

        Without the place to go on from, every claim would walk past all rows that an old snapshot keeps alive.
        """
        running = Batch.objects.primary().filter(pk=batch.pk, status=Status.IN_PROGRESS)
        rows = BatchRow.objects.primary().filter(Exists(running), batch=batch.pk)
        if due := _lock(rows.due().order_by("retry_at", "line"), wanted):
            return due
        last_line = self._last_lines.get(batch.pk, 0)
        in_order = rows.queued().order_by("line")
        found = _lock(in_order.filter(line__gt=last_line), wanted)
        if not found and last_line:
            found = _lock(in_order, wanted)
        if found:
            self._last_lines[batch.pk] = found[-1].line
        return found

    def _note_drained(self, batch: Batch) -> bool:
        """
        Let no worker look into a batch again, unless its rows are only locked; return whether that is so.

        A row that is due clears the mark.
        """
        queued = BatchRow.objects.primary().filter(batch=batch.pk).queued()
        if queued.order_by("line").values_list("line")[:1]:
            return False
        self._last_lines.pop(batch.pk, None)
        Batch.objects.primary().filter(pk=batch.pk).set_drained()
        return True

    def _charge(self, batch: Batch, seconds: float) -> None:
        self._latest_turn = max(self._latest_turn, batch.turn)
        Batch.objects.primary().filter(pk=batch.pk).charge(seconds, turn=self._latest_turn)

    def _scope(self, kind: Kind) -> list[Key]:
        return [key for key, entry in self._registrations.items() if entry.kind is kind and self._is_usable(entry.app)]

    def _registration(self, batch: Batch) -> Registration:
        return self._registrations[Kind(batch.kind), batch.app, batch.op]


def _lock(rows: BatchRowQuerySet, wanted: int) -> list[ClaimedRow]:
    return [
        ClaimedRow(*row) for row in rows.lock_free(wanted).values_list("id", "line", INPUT_TEXT, F("attempts") + 1)
    ]
