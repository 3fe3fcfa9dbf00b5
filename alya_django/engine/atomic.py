"""Process rows in the transaction that records them: their effects in this database happen once, or not at all."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from django.db import DatabaseError

from alya_django.conf import settings
from alya_django.db import Database
from alya_django.engine.claim import Chunk, ClaimedRow
from alya_django.engine.finish import Finisher
from alya_django.engine.pace import Pace
from alya_django.engine.process import Processed, raised, to_record
from alya_django.engine.record import Recorder
from alya_django.faults import chain
from alya_django.models import BatchRow
from alya_django.registry import Registration

Run = Callable[[ClaimedRow], Processed]

CAREFUL_CHUNKS = 20
REFUSALS_MAX = 20
# Whoever has met a deadlock would wait a second for the next one to be noticed.
LOCK_SECONDS = 0.1
REFUSAL_SECONDS = 0.005
REFUSAL_SECONDS_MAX = 0.5


class Piece(NamedTuple):
    """Rows that were processed and recorded in one transaction, and those that there was no time for."""

    done: list[Processed]
    left: list[ClaimedRow]


@dataclass(slots=True)
class Course:
    """How the rows of a chunk are gone about: in hope at first, and as they have given reason since."""

    careful: bool
    holds: bool = False
    nalone: int = 0
    refusals: int = 0

    def went_through(self) -> None:
        """Take in that a transaction was committed."""
        self.refusals = 0
        self.nalone = max(0, self.nalone - 1)


class Lost(Exception):
    """Some of the rows are not this worker's any more."""


class Undo(Exception):
    """What a row has done is to be undone: it has failed, or was put off."""

    def __init__(self, processed: Processed) -> None:
        self.processed = processed


class Atomic:
    """
    Process the rows of atomic ops for one worker.

    Many rows share a transaction, as many as there is time for. Where one of them fails, all are undone and run
    again, each in a savepoint; where the database refuses, because of a deadlock for one, each in a transaction of its
    own. A refusal is never a row's fault. A processor may be called several times for a row; what it has done in
    this database stays once.
    """

    def __init__(self, store: Database, recorder: Recorder, pace: Pace) -> None:
        self._store = store
        self._recorder = recorder
        self._pace = pace
        self._careful: Counter[Registration] = Counter()

    def pieces(self, chunk: Chunk, run: Run, goes_on: Callable[[], bool]) -> Iterator[Piece]:
        """Process and record the rows of a chunk, as long as it goes on, yielding them by transactions."""
        rows, course = chunk.rows, Course(careful=self._begins_careful(chunk.registration))
        while rows and goes_on():
            share = rows[: 1 if course.nalone else self._pace.atomic_rows(chunk.registration)]
            try:
                piece = self._commit(chunk, share, run, goes_on, course)
            except (Undo, Lost, DatabaseError) as error:
                failed = self._take_in(error, chunk, share, course)
                if failed is None:
                    continue
                piece = failed
            rows = [*piece.left, *rows[len(share) :]]
            if not course.nalone:
                self._pace.agreed(chunk.registration, len(piece.done))
            course.went_through()
            yield piece

    def answer(self, chunk: Chunk, run: Run, finisher: Finisher) -> tuple[Processed, int]:
        """Process the row of a slow query, record and finish it in one transaction; return it, and how many ended."""
        (claimed,), refusals = chunk.rows, 0
        while True:
            closing = None
            try:
                with self._recorder.gate(chunk.batch.pk):
                    processed = self._undoing(run, claimed)
                    closing = finisher.close_slow_query(chunk, processed)
            except DatabaseError as error:
                finisher.drop_files(closing)
                if self._store.is_refusal(error):
                    refusals += 1
                    self._bear(chunk, error, refusals)
                    continue
                if self._store.is_away(error):
                    raise
                processed = raised(claimed.id, error)
                closing = finisher.close_slow_query(chunk, processed)
            return processed, finisher.tell_of_slow_query(closing)

    def _begins_careful(self, registration: Registration) -> bool:
        if not self._careful[registration]:
            return False
        self._careful[registration] -= 1
        return True

    def _take_in(
        self, error: Undo | Lost | DatabaseError, chunk: Chunk, share: list[ClaimedRow], course: Course
    ) -> Piece | None:
        """Learn from a transaction that failed; return what became of a row that alone can be to blame."""
        match error:
            case Undo():
                course.careful = True
                self._careful[chunk.registration] = CAREFUL_CHUNKS
                return None
            case Lost():
                course.holds = True
                return None
        if self._store.is_refusal(error):
            course.refusals += 1
            self._bear(chunk, error, course.refusals)
        elif self._store.is_away(error):
            raise error
        elif course.careful and course.nalone:
            # Only the commit has shown what is wrong with the row.
            return self._fail(chunk, share[0], error)
        else:
            course.careful = True
        course.nalone = course.nalone or len(share)
        return None

    def _commit(
        self, chunk: Chunk, rows: list[ClaimedRow], run: Run, goes_on: Callable[[], bool], course: Course
    ) -> Piece:
        """
        Process and record rows in one transaction.

        Raises:
            Undo: A row has failed, and nobody was careful enough to give it a savepoint.
            Lost: A row is somebody else's by now; who holds the rows first leaves it out.
        """
        until = time.monotonic() + settings.FLUSH_SECONDS
        done: list[Processed] = []
        with self._recorder.gate(chunk.batch.pk):
            if len(rows) > 1 and self._pace.is_contended(chunk.registration):
                self._store.limit_lock_waits(LOCK_SECONDS)
            left = deque(self._hold(chunk, rows) if course.holds else rows)
            while left:
                claimed = left.popleft()
                done.append(self._undoing(run, claimed) if course.careful else self._hoping(run, claimed))
                if time.monotonic() >= until or not goes_on():
                    break
            if self._recorder.write(chunk.batch.pk, chunk.claim, *to_record(done)) < len(done):
                raise Lost
        return Piece(done, list(left))

    def _hold(self, chunk: Chunk, rows: list[ClaimedRow]) -> list[ClaimedRow]:
        """Return the rows that the claim still holds; nobody else can take them until the commit."""
        lines = {"line__gte": rows[0].line, "line__lte": rows[-1].line}
        held = BatchRow.objects.primary().filter(**lines).hold(chunk.claim)
        return [row for row in rows if row.id in held]

    def _hoping(self, run: Run, claimed: ClaimedRow) -> Processed:
        processed = run(claimed)
        if not processed.is_success:
            self._raise_refusal(processed)
            raise Undo(processed)
        return processed

    def _undoing(self, run: Run, claimed: ClaimedRow) -> Processed:
        """Run a row in a savepoint of its own; unless it succeeds, nothing of what it has done stays."""
        try:
            with self._store.transaction():
                processed = run(claimed)
                if not processed.is_success:
                    raise Undo(processed)
                # What is deferred would be checked at the commit, where nobody could tell whose fault it is.
                self._store.connection.check_constraints()
        except Undo as undo:
            self._raise_refusal(undo.processed)
            return undo.processed
        except DatabaseError as error:
            if self._store.is_refusal(error) or self._store.is_away(error):
                raise
            return raised(claimed.id, error)
        return processed

    def _raise_refusal(self, processed: Processed) -> None:
        """Raise the database's refusal that a row met, if that is what made it fail."""
        for error in () if processed.error is None else chain(processed.error):
            if self._store.is_refusal(error):
                raise error

    def _bear(self, chunk: Chunk, error: DatabaseError, refusals: int) -> None:
        """Take a refusal for what it is: others want the same rows just now."""
        if refusals > REFUSALS_MAX:
            raise error
        self._pace.refused(chunk.registration)
        time.sleep(random.uniform(0, min(REFUSAL_SECONDS * 2**refusals, REFUSAL_SECONDS_MAX)))

    def _fail(self, chunk: Chunk, claimed: ClaimedRow, error: DatabaseError) -> Piece:
        processed = raised(claimed.id, error)
        recorded = self._recorder.record(chunk.batch.pk, chunk.claim, [processed.ending])
        return Piece([processed] if recorded else [], [])
