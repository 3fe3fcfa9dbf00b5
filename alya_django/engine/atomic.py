"""Process rows in the transaction that records them: their effects in this database happen once, or not at all."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from django.db import DatabaseError

from alya_django.conf import settings
from alya_django.db import Database
from alya_django.engine.claim import Chunk, ClaimedRow
from alya_django.engine.finish import Finisher
from alya_django.engine.pace import Pace
from alya_django.engine.process import Processed, raised, to_record
from alya_django.engine.record import Recorder
from alya_django.models import BatchRow
from alya_django.registry import Registration

Run = Callable[[ClaimedRow], Processed]

CAREFUL_CHUNKS = 20
REFUSALS_MAX = 20
REFUSAL_SECONDS = 0.005
REFUSAL_SECONDS_MAX = 0.5


class Piece(NamedTuple):
    """Rows that were processed and recorded in one transaction, and those that there was no time for."""

    done: list[Processed]
    left: list[ClaimedRow]


class Undo(Exception):
    """What a row has done is to be undone: it has failed, or was put off."""

    def __init__(self, processed: Processed) -> None:
        self.processed = processed


class Atomic:
    """
    Process the rows of atomic ops for one worker.

    As many rows as there is time for share a transaction. Where one of them fails, all are undone and run again,
    each in a savepoint; where the database refuses, because of a deadlock for one, each in a transaction of its own.
    A refusal is never a row's fault. A processor may be called several times for a row; what it has done in this
    database stays once.
    """

    def __init__(self, store: Database, recorder: Recorder, pace: Pace) -> None:
        self._store = store
        self._recorder = recorder
        self._pace = pace
        self._careful: Counter[Registration] = Counter()

    def pieces(self, chunk: Chunk, run: Run, goes_on: Callable[[], bool]) -> Iterator[Piece]:
        """Process and record the rows of a chunk, as long as it goes on, yielding them by transactions."""
        rows, refusals = chunk.rows, 0
        careful, alone = self._begins_careful(chunk.registration), False
        while rows and goes_on():
            try:
                count = 1 if alone else len(rows)
                piece = self._commit(chunk, rows[:count], run, goes_on, careful=careful)
            except Undo:
                careful = True
                self._careful[chunk.registration] = CAREFUL_CHUNKS
                continue
            except DatabaseError as error:
                if self._store.is_refusal(error):
                    refusals += 1
                    self._bear(chunk, error, refusals)
                elif self._store.is_away(error):
                    raise
                elif careful and alone:
                    # Only the commit has shown what is wrong with the row.
                    yield self._fail(chunk, rows[0], error)
                    rows = rows[1:]
                careful = alone = True
                continue
            rows, refusals = [*piece.left, *rows[count:]], 0
            yield piece
        if not alone:
            self._pace.agreed(chunk.registration)

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

    def _commit(
        self, chunk: Chunk, rows: list[ClaimedRow], run: Run, goes_on: Callable[[], bool], *, careful: bool
    ) -> Piece:
        """Process and record rows in one transaction; raise Undo for one that fails, unless each has a savepoint."""
        until = time.monotonic() + settings.FLUSH_SECONDS
        done: list[Processed] = []
        with self._recorder.gate(chunk.batch.pk):
            # Held here, they are nobody else's until the commit: what is done for them will be recorded.
            held = BatchRow.objects.primary().hold(chunk.claim)
            left = deque(row for row in rows if row.id in held)
            while left:
                claimed = left.popleft()
                done.append(self._undoing(run, claimed) if careful else self._hoping(run, claimed))
                if time.monotonic() >= until or not goes_on():
                    break
            self._recorder.write(chunk.batch.pk, chunk.claim, *to_record(done))
        return Piece(done, list(left))

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
        error: BaseException | None = processed.error
        while error is not None:
            if self._store.is_refusal(error):
                raise error
            error = error.__cause__ or error.__context__

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
