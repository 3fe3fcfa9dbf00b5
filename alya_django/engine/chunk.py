"""Bring one chunk from its claim to its end: process the rows, record them, finish the batch."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from alya_django import log_words
from alya_django.conf import settings
from alya_django.engine.atomic import Atomic
from alya_django.engine.claim import Chunk, ClaimedRow
from alya_django.engine.crew import Crew
from alya_django.engine.finish import Finisher
from alya_django.engine.hold import Holder
from alya_django.engine.init_blocks import InitBlocks, InitFailed
from alya_django.engine.pace import Pace
from alya_django.engine.process import Processed, Processing, engine_message, process, to_record
from alya_django.engine.record import Recorder
from alya_django.engine.watch import NO_WATCH, NoWatch
from alya_django.status import Kind

logger = logging.getLogger("alya_django.engine")

BATCHES_REMEMBERED = 1_000
FLUSH_CHARS = 16_000_000


class Piece(NamedTuple):
    """Rows that were recorded together: how many the claim still held of them, and the seconds they took."""

    done: list[Processed]
    recorded: int
    seconds: float


class ChunkRunner:
    """
    Work off chunks for one worker.

    It stops within a chunk when ``is_stopping`` says so or the claim is lost. Exceptions of user code, which fail
    no more than their row, go to ``on_error``. Without a ``crew`` rows are processed one after the other.
    """

    def __init__(
        self,
        *,
        init_blocks: InitBlocks,
        pace: Pace,
        recorder: Recorder,
        finisher: Finisher,
        atomic: Atomic,
        crew: Crew | None,
        is_stopping: Callable[[], bool],
        on_error: Callable[[BaseException], None],
        watch: NoWatch = NO_WATCH,
    ) -> None:
        self._init_blocks = init_blocks
        self._pace = pace
        self._recorder = recorder
        self._finisher = finisher
        self._atomic = atomic
        self._holder = Holder()
        self._crew = crew
        self._is_stopping = is_stopping
        self._on_error = on_error
        self._watch = watch
        self._holds_claim = True
        self._logical_names: dict[UUID, set[str]] = defaultdict(set)

    def run(self, chunk: Chunk) -> int:
        """Work off a chunk and return how many of its rows ended."""
        batch = chunk.batch
        try:
            init_block = self._init_blocks.get(batch.app)
            if batch.kind == Kind.SLOW_QUERY:
                return self._answer(chunk, init_block)
            rows = self._process_rows(chunk, init_block)
        except InitFailed as failure:
            self._on_init_failed(chunk, failure)
            return 0
        if rows and self._finisher.finish(batch.pk):
            self._logical_names.pop(batch.pk, None)
        return rows

    def _process_rows(self, chunk: Chunk, init_block: Any) -> int:
        """Process and record a chunk, what is done every FLUSH_SECONDS, and give back what it does not come to."""
        offered = recorded = 0
        worked = 0.0
        put_off: list[tuple[int, BaseException]] = []
        self._holds_claim = True
        processing = Processing(chunk, self._names(chunk), self._watch)
        pieces = self._atomic_pieces if chunk.registration.options.atomic else self._plain_pieces
        for piece in pieces(processing, init_block):
            self._note_failures(chunk, piece.done)
            offered += len(piece.done)
            recorded += piece.recorded
            put_off += _put_off(piece.done)
            worked += piece.seconds
            self._holds_claim = recorded == offered
            self._holder.look(chunk, piece.done)
        if offered < len(chunk.rows):
            self._recorder.requeue(chunk.batch.pk, chunk.claim)
        if offered:
            self._pace.learn(chunk.registration, offered, worked)
        _log(chunk, recorded, worked)
        _log_put_off(chunk, put_off)
        return min(offered - len(put_off), recorded)

    def _plain_pieces(self, processing: Processing, init_block: Any) -> Iterator[Piece]:
        """Record what is done every FLUSH_SECONDS."""
        chunk = processing.chunk
        if self._crew is not None and chunk.registration.options.concurrency > 1:
            rows = self._crew.process(processing, self._goes_on)
        else:
            rows = process(processing, init_block, self._goes_on)
        for done, seconds in self._in_flushes(rows):
            yield Piece(done, self._recorder.record(chunk.batch.pk, chunk.claim, *to_record(done)), seconds)

    def _atomic_pieces(self, processing: Processing, init_block: Any) -> Iterator[Piece]:
        """Record what is done in the transactions it is done in."""
        run = self._in_transaction(processing, init_block)
        started = time.monotonic()
        for done, _ in self._atomic.pieces(processing.chunk, run, self._goes_on):
            yield Piece(done, len(done), time.monotonic() - started)
            started = time.monotonic()

    def _in_transaction(self, processing: Processing, init_block: Any) -> Callable[[ClaimedRow], Processed]:
        call = processing.chunk.registration.method
        return lambda claimed: processing.run(claimed, call, init_block)

    def _in_flushes(self, rows: Iterator[Processed]) -> Iterator[tuple[list[Processed], float]]:
        """Yield the processed rows in what is to be recorded together, with the seconds it took."""
        done: list[Processed] = []
        failure: BaseException | None = None
        chars, flush_seconds = 0, settings.FLUSH_SECONDS
        started = time.monotonic()
        try:
            for processed in rows:
                done.append(processed)
                chars += len(processed.ending.result or "") + len(processed.ending.output_lines or "")
                seconds = time.monotonic() - started
                if seconds >= flush_seconds or chars >= FLUSH_CHARS:
                    yield done, seconds
                    done, chars = [], 0
                    started = time.monotonic()
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        # Recorded whatever has happened: nobody is to do again what was done.
        if done:
            yield done, time.monotonic() - started
        if failure is not None:
            raise failure

    def _goes_on(self) -> bool:
        return self._holds_claim and not self._is_stopping()

    def _answer(self, chunk: Chunk, init_block: Any) -> int:
        """Answer a slow query: one transaction records the row and ends the query."""
        started = time.monotonic()
        processing = Processing(chunk, set(), self._watch)
        if chunk.registration.options.atomic:
            run = self._in_transaction(processing, init_block)
            processed, recorded = self._atomic.answer(chunk, run, self._finisher)
            seconds = time.monotonic() - started
        else:
            (processed,) = process(processing, init_block)
            seconds = time.monotonic() - started
            recorded = self._finisher.tell_of_slow_query(self._finisher.close_slow_query(chunk, processed))
        self._note_failures(chunk, [processed])
        self._pace.learn(chunk.registration, 1, seconds)
        _log(chunk, recorded, seconds)
        _log_put_off(chunk, _put_off([processed]))
        return recorded

    def _on_init_failed(self, chunk: Chunk, failure: InitFailed) -> None:
        said = log_words.of_error(failure.cause)
        logger.error("The initializer of app %r failed: %s", chunk.batch.app, said)
        self._on_error(failure.cause)
        if failure.is_hopeless:
            message = engine_message(5, "configerror", str(failure))
            self._finisher.give_up(chunk.batch.pk, message, claim=chunk.claim)
        else:
            self._recorder.requeue(chunk.batch.pk, chunk.claim, delay=failure.delay)

    def _note_failures(self, chunk: Chunk, done: list[Processed]) -> None:
        """Log the exceptions of some rows in one line, the first as far as a log may have it."""
        failed = [(processed.ending.row_id, processed.error) for processed in done if processed.error is not None]
        if failed:
            row_id, error = failed[0]
            self._on_error(error)
            logger.warning(
                "%s %s: %s rows failed by an exception, line %s by %s",
                chunk.registration,
                chunk.batch.pk,
                len(failed),
                _line_of(row_id, chunk),
                log_words.of_error(error),
                exc_info=log_words.traceback_of(error),
            )

    def _names(self, chunk: Chunk) -> set[str]:
        """Return the names of the output files that the batch has, as far as this worker has seen."""
        if len(self._logical_names) >= BATCHES_REMEMBERED:
            self._logical_names.clear()
        return self._logical_names[chunk.batch.pk]


def _line_of(row_id: int, chunk: Chunk) -> int:
    return next(row.line for row in chunk.rows if row.id == row_id)


def _put_off(done: list[Processed]) -> list[tuple[int, BaseException]]:
    """Return the ids of the rows that were put off, each with what it was put off by."""
    return [(row.ending.row_id, row.put_off_by) for row in done if row.put_off_by is not None]


def _log_put_off(chunk: Chunk, put_off: list[tuple[int, BaseException]]) -> None:
    """Log in one line that rows were put off, and what the first of them has met."""
    if put_off:
        row_id, error = put_off[0]
        logger.warning(
            "%s %s: %s rows were put off, line %s by %s",
            chunk.registration,
            chunk.batch.pk,
            len(put_off),
            _line_of(row_id, chunk),
            log_words.of_error(error),
        )


def _log(chunk: Chunk, recorded: int, seconds: float) -> None:
    logger.info(
        "%s %s: %s rows from line %s in %.3f s.",
        chunk.registration,
        chunk.batch.pk,
        recorded,
        chunk.rows[0].line,
        seconds,
    )
