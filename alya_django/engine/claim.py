"""Pick a batch and take rows of it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import QuerySet, Subquery, TextField, Value
from django.db.models.functions import Cast, Length, Now

from alya_django.db import Charge, Claimed, Database
from alya_django.engine.pace import Pace
from alya_django.models import Batch, BatchRow, Worker
from alya_django.querysets import CLAIMS_PER_WORKER
from alya_django.registry import Key, Registration
from alya_django.status import Kind, Status

OLDEST_EVERY = 8
CANDIDATES = 5
BATCHES_KEPT = 100
CONTEXT_CHARS_KEPT = 16_000_000
# What a batch may have much of, and no claim needs.
NOT_NEEDED = ("output_files", "mark_done_error", "hold_reason", "control_totals", "totals_mismatch")
BATCHES_OWED = 1_000
# Decoded where a fault of it fails the row alone, and faster than by the model's field.
INPUT_TEXT = Cast("input", TextField())


class ClaimedRow(NamedTuple):
    """
    A row in the hands of this worker; its input is still JSON text, ``attempt`` counts this claim.

    ``strikes`` is how often its worker died or it asked for another try.
    """

    id: int
    line: int
    input: str
    attempt: int
    strikes: int


class Candidate(NamedTuple):
    """A batch that may have rows to claim, as far as choosing it needs."""

    id: UUID
    status: str
    turn: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one batch that one claim holds; the batch is as its worker first met it, so ask anew how it stands."""

    claim: int
    batch: Batch
    registration: Registration
    rows: list[ClaimedRow]


class Claimer:
    """
    Take chunks for one worker, of the ops it serves and that are usable just now.

    Slow queries go first, oldest first; after one, a chunk of a batch goes next if there is any. Among the
    batches goes the one whose ``turn`` is smallest, and every eighth time the oldest. Within a batch go the rows that
    are due, one whose worker has died alone, and else those never claimed. ``met_locks`` tells that the
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
        self._owed: dict[UUID, float] = {}
        self._questions: dict[tuple[Any, ...], Callable[[], list[Any]]] = {}
        self._batches = _Batches()
        self._after_slow_query = False
        self.met_locks = False

    def take(self, rows_max: float = math.inf) -> Chunk | None:
        """Return the next chunk, of so many rows at most, or None if there is nothing to claim now."""
        self.met_locks = False
        takers: list[Callable[[], Chunk | None]] = [self._take_slow_query, partial(self._take_batch_rows, rows_max)]
        if self._after_slow_query:
            takers.reverse()
        chunk = self._store.again(takers[0]) or self._store.again(takers[1])
        self._after_slow_query = chunk is not None and chunk.batch.kind == Kind.SLOW_QUERY
        return chunk

    def _take_slow_query(self) -> Chunk | None:
        scope = self._scope(Kind.SLOW_QUERY)
        is_due, is_queued = self._is_asked(scope) if scope else (False, False)
        if not (is_due or is_queued):
            return None
        asked = BatchRow.objects.primary().of(scope).filter(line=0).defer("input").annotate(input_text=INPUT_TEXT)
        with self._store.transaction():
            row = asked.due().order_by("retry_at").lock_free_with_batch().first() if is_due else None
            if row is None and is_queued:
                row = asked.queued().order_by("id").lock_free_with_batch().first()
            if row is None:
                return None
            claim = next(self._claims)
            BatchRow.objects.primary().filter(pk=row.pk).claim(claim, self._name)
            Batch.objects.primary().filter(pk=row.batch_id, status=Status.QUEUED).update(
                status=Status.IN_PROGRESS, started_at=Now()
            )
        text: str = row.input_text  # type: ignore[attr-defined]  # annotated above
        claimed = ClaimedRow(row.pk, row.line, text, row.attempts + 1, row.lost + row.retries)
        return Chunk(claim, row.batch, self._registration(row.batch), [claimed])

    def _take_batch_rows(self, rows_max: float) -> Chunk | None:
        if not (scope := self._scope(Kind.BATCH)):
            return None
        by_age = next(self._picks) % OLDEST_EVERY == 0
        for candidate in self._candidates(scope, by_age=by_age):
            batches = Batch.objects.primary().filter(pk=candidate.id)
            if candidate.status == Status.QUEUED and not batches.start():
                self.met_locks = True
            elif chunk := self._take_rows(candidate, rows_max):
                # The oldest may be far ahead of the others: they are not to be moved there.
                if not by_age:
                    self._latest_turn = max(self._latest_turn, candidate.turn)
                return chunk
        return None

    def _is_asked(self, scope: list[Key]) -> tuple[bool, bool]:
        """Return whether there are slow queries that are due again, and that are new: one statement for nothing."""

        def asked() -> QuerySet[Worker, Any]:
            rows = BatchRow.objects.primary().of(scope).filter(line=0)
            # The first in the order of its index: a union would read all that wait, and if the order were left open
            # the planner might hope to find one soon from the table's beginning.
            is_due, is_queued = (
                Subquery(waiting.order_by(order).values_list(Value(1))[:1])
                for waiting, order in ((rows.due(), "retry_at"), (rows.queued(), "id"))
            )
            return Worker.objects.primary().filter(pk=self._number).values_list(is_due, is_queued)

        answers = self._ask((Kind.SLOW_QUERY, *scope), asked)
        if not answers:
            # A worker without a record was declared dead: that is for the next round to find out.
            return True, True
        is_due, is_queued = answers[0]
        return is_due is not None, is_queued is not None

    def _candidates(self, scope: list[Key], *, by_age: bool) -> Iterator[Candidate]:
        """Yield the batches to try, best first."""

        def in_order() -> QuerySet[Batch, Any]:
            order = ("requested_at", "id") if by_age else ("turn", "requested_at", "id")
            runnable = Batch.objects.primary().runnable().of(scope)
            return runnable.order_by(*order).values_list("id", "status", "turn")

        found = [Candidate(*values) for values in self._ask((by_age, *scope), lambda: in_order()[:CANDIDATES])]
        tried: list[UUID] = []
        while found:
            yield from found
            tried += [candidate.id for candidate in found]
            found = [Candidate(*values) for values in in_order().exclude(pk__in=tried)[:CANDIDATES]]

    def _ask(self, name: tuple[Any, ...], query: Callable[[], QuerySet[Any, Any]]) -> list[Any]:
        """Ask what is asked for every chunk; the name tells the questions apart."""
        if name not in self._questions:
            self._questions[name] = self._store.prepared(query())
        return self._questions[name]()

    def _take_rows(self, candidate: Candidate, rows_max: float) -> Chunk | None:
        batch = self._batches.get(candidate.id)
        registration = self._registration(batch)
        wanted = int(min(self._pace.chunk_rows(registration), rows_max))
        claim = next(self._claims)
        charge = Charge(self._latest_turn, self._pace.seconds(registration), self._owed.pop(batch.pk, 0.0))
        claimed = self._claim_rows(batch, claim, wanted, charge)
        rows = list(map(ClaimedRow._make, claimed.rows))
        if not claimed.is_charged:
            self._owe(batch, charge.owed + len(rows) * charge.row_seconds)
        if not claimed.has_entered:
            self.met_locks = True
            return None
        if len(rows) < wanted and not self._note_drained(batch) and not rows:
            self.met_locks = True
        return Chunk(claim, batch, registration, rows) if rows else None

    def _claim_rows(self, batch: Batch, claim: int, wanted: int, charge: Charge) -> Claimed:
        """
        Claim rows: requeued ones that are due, else in the order of lines from where this worker was.

        Without the place to go on from, every claim would walk past all rows that an old snapshot keeps alive.
        """

        def claimed(after_line: int) -> Claimed:
            return self._store.claim_rows(
                batch.pk, claim, self._name, wanted=wanted, after_line=after_line, charge=charge
            )

        last_line = self._last_lines.get(batch.pk, 0)
        found = claimed(last_line)
        if last_line and found.has_entered and not found.rows:
            found = claimed(0)
        if found.rows:
            last = ClaimedRow._make(found.rows[-1])
            if last.attempt == 1:
                self._last_lines[batch.pk] = last.line
        return found

    def _owe(self, batch: Batch, seconds: float) -> None:
        """Keep in mind what a batch is to be charged with its next chunk, because somebody has it locked now."""
        if len(self._owed) >= BATCHES_OWED:
            self._owed.clear()
        if seconds:
            self._owed[batch.pk] = seconds

    def _note_drained(self, batch: Batch) -> bool:
        """
        Let no worker look into a batch again, unless its rows are only locked; return whether that is so.

        A row that falls due clears the mark.
        """
        rows = BatchRow.objects.primary().filter(batch=batch.pk)
        if rows.queued().order_by("line").values_list("line")[:1]:
            return False
        if rows.due().order_by("retry_at").values_list("line")[:1]:
            return False
        self._last_lines.pop(batch.pk, None)
        Batch.objects.primary().filter(pk=batch.pk).set_drained()
        return True

    def _scope(self, kind: Kind) -> list[Key]:
        return [key for key, entry in self._registrations.items() if entry.kind is kind and self._is_usable(entry.app)]

    def _registration(self, batch: Batch) -> Registration:
        return self._registrations[Kind(batch.kind), batch.app, batch.op]


class _Batches:
    """The batches that a worker met lately: read once, for what they are and not for how they stand."""

    def __init__(self) -> None:
        self._met: OrderedDict[UUID, tuple[Batch, int]] = OrderedDict()
        self._chars = 0

    def get(self, batch_id: UUID) -> Batch:
        """Return a batch as it was when it was first met."""
        if batch_id in self._met:
            self._met.move_to_end(batch_id)
            return self._met[batch_id][0]
        batches = Batch.objects.primary().defer(*NOT_NEEDED)
        batch = batches.annotate(chars=Length(Cast("context", TextField()))).get(pk=batch_id)
        chars: int = batch.chars  # type: ignore[attr-defined]  # annotated above
        self._met[batch_id] = batch, chars
        self._chars += chars
        while len(self._met) > BATCHES_KEPT or (self._chars > CONTEXT_CHARS_KEPT and len(self._met) > 1):
            _, (_, forgotten) = self._met.popitem(last=False)
            self._chars -= forgotten
        return batch
