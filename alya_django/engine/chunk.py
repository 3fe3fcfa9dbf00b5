"""Bring one chunk from its claim to its end: process the rows, record them, finish the batch."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from alya_django.conf import settings
from alya_django.engine.claim import Chunk
from alya_django.engine.finish import Finisher
from alya_django.engine.init_blocks import InitBlocks, InitFailed
from alya_django.engine.pace import Pace
from alya_django.engine.process import Processed, engine_message, process
from alya_django.engine.record import Recorder
from alya_django.status import Kind

logger = logging.getLogger("alya_django.engine")

BATCHES_REMEMBERED = 1_000
FLUSH_CHARS = 16_000_000


class ChunkRunner:
    """
    Work off chunks for one worker.

    It stops within a chunk when ``is_stopping`` says so or the claim is lost. Exceptions of user code, which fail
    no more than their row, go to ``on_error``.
    """

    def __init__(
        self,
        *,
        init_blocks: InitBlocks,
        pace: Pace,
        recorder: Recorder,
        finisher: Finisher,
        is_stopping: Callable[[], bool],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._init_blocks = init_blocks
        self._pace = pace
        self._recorder = recorder
        self._finisher = finisher
        self._is_stopping = is_stopping
        self._on_error = on_error
        self._logical_names: dict[UUID, set[str]] = defaultdict(set)

    def run(self, chunk: Chunk) -> int:
        """Work off a chunk and return how many of its rows ended."""
        batch = chunk.batch
        try:
            init_block = self._init_blocks.get(batch.app)
        except InitFailed as failure:
            self._on_init_failed(chunk, failure)
            return 0
        if batch.kind == Kind.SLOW_QUERY:
            return self._answer(chunk, init_block)
        rows = self._process_rows(chunk, init_block)
        if rows and self._finisher.finish(batch.pk):
            self._logical_names.pop(batch.pk, None)
        return rows

    def _process_rows(self, chunk: Chunk, init_block: Any) -> int:
        """Process and record a chunk, what is done every FLUSH_SECONDS, and stop where its claim is lost."""
        offered = recorded = 0
        worked = 0.0
        for done, seconds in self._in_flushes(process(chunk, init_block, self._names(chunk))):
            self._note_failures(chunk, done)
            endings = [processed.ending for processed in done]
            offered += len(endings)
            worked += seconds
            recorded += self._recorder.record(chunk.batch.pk, chunk.claim, endings)
            if recorded < offered or self._is_stopping():
                break
        if offered < len(chunk.rows):
            self._recorder.requeue(chunk.batch.pk, chunk.claim)
        self._pace.learn(chunk.registration, offered, worked)
        _log(chunk, recorded, worked)
        return recorded

    def _in_flushes(self, rows: Iterator[Processed]) -> Iterator[tuple[list[Processed], float]]:
        """Yield the processed rows in what is to be recorded together, with the seconds it took."""
        done: list[Processed] = []
        chars, flush_seconds = 0, settings.FLUSH_SECONDS
        started = time.monotonic()
        for processed in rows:
            done.append(processed)
            chars += len(processed.ending.result or "") + len(processed.ending.output_lines or "")
            seconds = time.monotonic() - started
            if seconds >= flush_seconds or chars >= FLUSH_CHARS or self._is_stopping():
                yield done, seconds
                done, chars = [], 0
                started = time.monotonic()
        if done:
            yield done, time.monotonic() - started

    def _answer(self, chunk: Chunk, init_block: Any) -> int:
        """Answer a slow query: one transaction records the row and ends the query."""
        started = time.monotonic()
        (processed,) = process(chunk, init_block, set())
        seconds = time.monotonic() - started
        self._note_failures(chunk, [processed])
        self._pace.learn(chunk.registration, 1, seconds)
        recorded = self._finisher.finish_slow_query(chunk, processed)
        _log(chunk, recorded, seconds)
        return recorded

    def _on_init_failed(self, chunk: Chunk, failure: InitFailed) -> None:
        logger.error("%s", failure)
        self._on_error(failure.cause)
        if failure.is_hopeless:
            message = engine_message(5, "configerror", str(failure))
            self._finisher.give_up(chunk.batch.pk, message, claim=chunk.claim)
        else:
            self._recorder.requeue(chunk.batch.pk, chunk.claim, delay=failure.delay)

    def _note_failures(self, chunk: Chunk, done: list[Processed]) -> None:
        """Log the exceptions of some rows in one line, with the first one's traceback."""
        errors = [processed.error for processed in done if processed.error is not None]
        if errors:
            self._on_error(errors[0])
            logger.warning(
                "%s %s: %s rows failed by an exception.",
                chunk.registration,
                chunk.batch.pk,
                len(errors),
                exc_info=errors[0],
            )

    def _names(self, chunk: Chunk) -> set[str]:
        """Return the names of the output files that the batch has, as far as this worker has seen."""
        if len(self._logical_names) >= BATCHES_REMEMBERED:
            self._logical_names.clear()
        return self._logical_names[chunk.batch.pk]


def _log(chunk: Chunk, recorded: int, seconds: float) -> None:
    logger.info(
        "%s %s: %s rows from line %s in %.3f s.",
        chunk.registration,
        chunk.batch.pk,
        recorded,
        chunk.rows[0].line,
        seconds,
    )
