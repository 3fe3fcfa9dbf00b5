"""The loop of one worker: claim, process, record, finish, and again."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

from django.conf import settings as django_settings
from django.db import reset_queries

import alya_django
from alya_django.conf import settings
from alya_django.engine.claim import Chunk, Claimer
from alya_django.engine.finish import Finisher
from alya_django.engine.init_blocks import InitBlocks, InitFailed
from alya_django.engine.pace import Pace
from alya_django.engine.process import Processed, process
from alya_django.engine.record import Recorder
from alya_django.engine.recover import Sweeper
from alya_django.models import Worker as WorkerRecord
from alya_django.models import database
from alya_django.registry import Registration, registry
from alya_django.status import Kind
from alya_django.validation import fold_name

logger = logging.getLogger("alya_django.engine")

STOP_ASKED_EVERY_SECONDS = 0.1
LOCKED_SECONDS = 0.01
BATCHES_REMEMBERED = 1_000


class Worker:
    """
    Work off batches and slow queries, in this thread and on its connection.

    A context manager: inside it the worker is registered, at its end rows it still holds are given back and the
    init blocks closed. ``error`` is the first exception of user code, which failed no more than its row.
    """

    def __init__(self, *, app: str | None = None, op: str | None = None) -> None:
        self._app = app if app is None else fold_name(app, "app")
        self._op = op if op is None else fold_name(op, "op")
        self.name = f"{socket.gethostname()[:200]}-{os.getpid()}-{uuid4().hex[:12]}"
        self.error: Exception | None = None
        self._is_stopping = False
        self._chunk: Chunk | None = None
        self._logical_names: dict[UUID, set[str]] = defaultdict(set)

    def __enter__(self) -> Self:
        if django_settings.DEBUG:
            logger.warning("DEBUG is on: Django keeps every statement; the worker clears them after each chunk.")
        registrations = [entry for entry in registry if self._serves(entry)]
        store = database()
        self._record = WorkerRecord.objects.primary().create(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=alya_django.__version__,
            ops=[entry.key for entry in registrations],
        )
        self._pace = Pace()
        self._init_blocks = InitBlocks()
        self._recorder = Recorder(store, number=self._record.pk, name=self.name)
        self._finisher = Finisher(store, self._init_blocks, self._note)
        self._sweeper = Sweeper(self._finisher, self._recorder, app=self._app, op=self._op)
        self._claimer = Claimer(
            store,
            number=self._record.pk,
            name=self.name,
            registrations=registrations,
            is_usable=self._init_blocks.is_usable,
            pace=self._pace,
        )
        self._beat_at = self._sweep_at = time.monotonic()
        logger.info("Worker %s serves %s.", self.name, ", ".join(map(_title, registrations)) or "nothing")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._chunk is not None:
                self._recorder.requeue(self._chunk.batch.pk, self._chunk.claim)
            WorkerRecord.objects.primary().filter(pk=self._record.pk).delete()
        except Exception:
            # What ended the worker matters more than that it could not say goodbye.
            logger.exception("Worker %s could not give back its rows.", self.name)
        self._init_blocks.close()
        logger.info("Worker %s has stopped.", self.name)

    def stop(self) -> None:
        """Let the loop end after the row in hand; safe in a signal handler."""
        self._is_stopping = True

    def run(self) -> None:
        """Work until stopped."""
        while not self._is_stopping:
            self._sweep_when_due()
            if self.round() is None and not self._sweeper.look():
                self._pause(LOCKED_SECONDS if self._claimer.met_locks else settings.POLL_SECONDS)

    def run_once(self) -> bool:
        """Sweep, work off one chunk if there is any, and return whether there was."""
        self._sweeper.sweep()
        return self.round() is not None

    def drain(self) -> int:
        """Work until nothing can be claimed now, and return how many rows ended."""
        total = 0
        while not self._is_stopping:
            rows = self.round()
            total += rows or 0
            if rows is None and not self._sweeper.sweep():
                if not self._claimer.met_locks:
                    break
                self._pause(LOCKED_SECONDS)
        return total

    def round(self) -> int | None:
        """Work off one chunk and return how many of its rows ended; None if there was none."""
        self._beat_when_due()
        self._chunk = self._claimer.take()
        if self._chunk is None:
            return None
        rows = self._work(self._chunk)
        self._chunk = None
        if django_settings.DEBUG:
            reset_queries()
        return rows

    def _work(self, chunk: Chunk) -> int:
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
            if recorded < offered or self._is_stopping:
                break
        if offered < len(chunk.rows):
            self._recorder.requeue(chunk.batch.pk, chunk.claim)
        self._pace.learn(chunk.registration, offered, worked)
        _log(chunk, recorded, worked)
        return recorded

    def _in_flushes(self, rows: Iterator[Processed]) -> Iterator[tuple[list[Processed], float]]:
        """Yield the processed rows in what is to be recorded together, with the seconds it took."""
        done: list[Processed] = []
        started = time.monotonic()
        for processed in rows:
            done.append(processed)
            seconds = time.monotonic() - started
            if seconds >= settings.FLUSH_SECONDS or self._is_stopping:
                yield done, seconds
                done = []
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
        recorded = self._finisher.finish_slow_query(chunk, processed, self._recorder)
        _log(chunk, recorded, seconds)
        return recorded

    def _on_init_failed(self, chunk: Chunk, failure: InitFailed) -> None:
        logger.error("%s", failure)
        self._note(failure.cause)
        if failure.is_hopeless:
            self._sweeper.give_up(chunk.batch.pk, str(failure), msgid=5, claim=chunk.claim)
        else:
            self._recorder.requeue(chunk.batch.pk, chunk.claim, delay=failure.delay)

    def _note(self, error: Exception) -> None:
        self.error = self.error or error

    def _note_failures(self, chunk: Chunk, done: list[Processed]) -> None:
        """Log the exceptions of some rows in one line, with the first one's traceback."""
        errors = [processed.error for processed in done if processed.error is not None]
        if errors:
            self._note(errors[0])
            title = _title(chunk.registration)
            logger.warning(
                "%s %s: %s rows failed by an exception.", title, chunk.batch.pk, len(errors), exc_info=errors[0]
            )

    def _names(self, chunk: Chunk) -> set[str]:
        """Return the names of the output files that the batch has, as far as this worker has seen."""
        if len(self._logical_names) >= BATCHES_REMEMBERED:
            self._logical_names.clear()
        return self._logical_names[chunk.batch.pk]

    def _serves(self, entry: Registration) -> bool:
        return self._app in (None, entry.app) and self._op in (None, entry.op)

    def _sweep_when_due(self) -> None:
        if time.monotonic() >= self._sweep_at:
            self._sweeper.sweep()
            self._sweep_at = time.monotonic() + settings.SWEEP_SECONDS

    def _beat_when_due(self) -> None:
        if time.monotonic() >= self._beat_at:
            WorkerRecord.objects.primary().filter(pk=self._record.pk).beat()
            self._beat_at = time.monotonic() + settings.HEARTBEAT_SECONDS

    def _pause(self, seconds: float) -> None:
        """Rest for about so long: workers that started together should not ask together."""
        until = time.monotonic() + seconds * random.uniform(2 / 3, 4 / 3)
        while not self._is_stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, STOP_ASKED_EVERY_SECONDS))


def _log(chunk: Chunk, recorded: int, seconds: float) -> None:
    logger.info(
        "%s %s: %s rows from line %s in %.3f s.",
        _title(chunk.registration),
        chunk.batch.pk,
        recorded,
        chunk.rows[0].line,
        seconds,
    )


def _title(registration: Registration) -> str:
    return f"{registration.app}/{registration.op}"
