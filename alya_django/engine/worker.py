"""The loop of one worker: claim, process, record, finish, and again."""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self
from uuid import uuid4

from django.conf import settings as django_settings
from django.db import reset_queries

import alya_django
from alya_django import log_words
from alya_django.conf import settings
from alya_django.db import Database
from alya_django.engine.atomic import Atomic
from alya_django.engine.chunk import ChunkRunner
from alya_django.engine.claim import Claimer
from alya_django.engine.crew import Crew
from alya_django.engine.deliver import Deliverer
from alya_django.engine.finish import Finisher
from alya_django.engine.heartbeat import Heartbeat
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.lookout import Lookout
from alya_django.engine.pace import Pace
from alya_django.engine.patience import Patience
from alya_django.engine.record import GateShut, Recorder
from alya_django.engine.scope import Scope
from alya_django.engine.sweep import Sweeper
from alya_django.engine.wakeup import Wakeup
from alya_django.engine.watch import NO_WATCH, NoWatch
from alya_django.models import Worker as WorkerRecord
from alya_django.models import database
from alya_django.registry import Registration

logger = logging.getLogger("alya_django.engine")

LOCKED_SECONDS = 0.01
FAILURES_MAX = 3
FAILURE_REST_SECONDS = 1.0


class Worker:
    """
    Work off the batches and slow queries of a scope, in this thread and on its connection.

    A context manager: inside it the worker is registered, at its end rows it still holds are given back and the
    init blocks closed. With ``beats_alone`` its heartbeat has a thread and a connection of its own, and the rows of
    some ops threads. ``watch`` is shown how far it is. ``error`` is the first exception of user code, which failed no
    more than its row.
    """

    def __init__(
        self,
        *,
        scope: Scope | None = None,
        beats_alone: bool = False,
        watch: NoWatch = NO_WATCH,
    ) -> None:
        self._scope = scope or Scope()
        self._watch = watch
        self.name = _new_name()
        self.error: BaseException | None = None
        self._beats_alone = beats_alone
        self._is_stopping = False
        self._wake: Callable[[], None] = lambda: None
        self._failures = self._rows = 0
        self._rows_max = math.inf
        self._may_hold_rows = False

    def __enter__(self) -> Self:
        with ExitStack() as ending:
            self._begin(ending)
            self._ending = ending.pop_all()
        return self

    def _begin(self, ending: ExitStack) -> None:
        if django_settings.DEBUG:
            logger.warning("DEBUG is on: Django keeps every statement; the worker clears them after each chunk.")
        registrations = self._scope.registrations()
        store = database()
        self._wakeup = ending.enter_context(closing(Wakeup(store, listens=settings.LISTEN)))
        self._wake = self._wakeup.wake
        self._patience = Patience(store, self._wakeup, is_stopping=lambda: self._is_stopping)
        if self._beats_alone:
            ending.enter_context(store.keep_alive())
        self._pace = Pace()
        self._init_blocks = InitBlocks()
        self._crew = Crew(self._init_blocks) if self._beats_alone else None
        self._take_number(store, registrations)
        self._sweep_at = self._look_at = time.monotonic()
        logger.info("Worker %s serves %s.", self.name, ", ".join(map(str, registrations)) or "nothing")

    def _take_number(self, store: Database, registrations: list[Registration]) -> None:
        """Register, and make what works under the number: all that it claims and counts."""
        self._record = self._patience.insist(self._register) if self._beats_alone else self._register()
        number = self._record.pk
        self._watch.register(number)
        self._recorder = Recorder(
            store,
            number=number,
            name=self.name,
            patience=self._patience if self._beats_alone else None,
            is_stopping=lambda: self._is_stopping,
        )
        deliverer = Deliverer(store, self._init_blocks, self._note)
        finisher = Finisher(store, self._recorder, deliverer, self._note)
        self._sweeper = Sweeper(finisher, deliverer, self._scope)
        self._claimer = Claimer(
            store,
            number=number,
            name=self.name,
            registrations=registrations,
            is_usable=self._init_blocks.is_usable,
            pace=self._pace,
        )
        self._runner = ChunkRunner(
            init_blocks=self._init_blocks,
            pace=self._pace,
            recorder=self._recorder,
            finisher=finisher,
            atomic=Atomic(store, self._recorder, self._pace),
            crew=self._crew,
            is_stopping=lambda: self._is_stopping,
            on_error=self._note,
            watch=self._watch,
        )
        self._lookout = Lookout(
            store, number=number, registrations=registrations, is_usable=self._init_blocks.is_usable
        )
        self._heartbeat = Heartbeat(store, number, is_stopping=lambda: self._is_stopping)
        if self._beats_alone:
            self._heartbeat.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heartbeat.stop()
        try:
            self._recorder.requeue_all()
            WorkerRecord.objects.primary().filter(pk=self._record.pk).delete()
        except Exception as failure:
            # What ended the worker matters more than that it could not say goodbye.
            logger.error(
                "Worker %s could not give back its rows: %s",
                self.name,
                log_words.of_error(failure),
                exc_info=log_words.traceback_of(failure),
            )
        if self._crew is not None:
            self._crew.close()
        self._init_blocks.close()
        self._ending.close()
        logger.info("Worker %s has stopped.", self.name)

    def stop(self) -> None:
        """Let the loop end after the row in hand; safe in a signal handler."""
        self._is_stopping = True
        self._wake()

    def run(self, *, max_rows: float = math.inf) -> None:
        """
        Work until stopped, or until so many rows have ended.

        A database that is away is waited for. What else fails ends the worker when it does so three rounds running.
        """
        self._rows_max = max_rows
        while not self._is_stopping and self._rows < max_rows:
            try:
                self._turn()
            except Exception as error:
                self._outlive(error)
            else:
                self._failures = 0
                self._patience.renew()

    def run_once(self) -> bool:
        """Sweep, work off one chunk if there is any, and return whether there was."""
        self._sweeper.sweep()
        return self.round() is not None

    def drain(self) -> int:
        """Work until nothing can be claimed now, and return how many rows ended."""
        before = self._rows
        while not self._is_stopping:
            if self.round() is None and not self._sweeper.sweep():
                if not self._claimer.met_locks:
                    break
                self._wakeup.rest(LOCKED_SECONDS)
        return self._rows - before

    def round(self) -> int | None:
        """Work off one chunk and return how many of its rows ended; None if there was none."""
        self._heartbeat.beat_when_due()
        if self._heartbeat.is_lost:
            self._begin_anew()
        chunk = self._claimer.take(self._rows_max - self._rows)
        if chunk is None:
            return None
        try:
            rows = self._runner.run(chunk)
        except GateShut:
            logger.warning("The abort of %s does not end: its rows are left as they are.", chunk.batch.pk)
            return 0
        self._rows += rows
        self._heartbeat.count(rows)
        self._watch.count(rows)
        if django_settings.DEBUG:
            reset_queries()
        return rows

    def _register(self) -> WorkerRecord:
        return WorkerRecord.objects.primary().create(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=alya_django.__version__,
            ops=[entry.key for entry in self._scope.registrations()],
        )

    def _turn(self) -> None:
        """Work off one chunk or, if there is none, rest until there may be one."""
        if self._may_hold_rows:
            # Who was taken for dead meanwhile is to learn it before the next claim.
            self._heartbeat.beat()
            self._recorder.requeue_all()
            # Their batches may be drained: a round that found nothing for that would pass for a good one.
            self._sweeper.look()
            self._may_hold_rows = False
        self._wakeup.forget_news()
        self._sweep_when_due()
        if self.round() is not None:
            self._wakeup.found_work()
            self._look_when_due()
        elif not self._sweeper.look():
            self._idle()

    def _begin_anew(self) -> None:
        """Work on under another number: this one was taken for dead, and its rows are given to others."""
        logger.warning("Worker %s was taken for dead; it goes on under another name.", self.name)
        self._recorder.requeue_all()
        self._heartbeat.stop()
        self.name = _new_name()
        self._take_number(database(), self._scope.registrations())

    def _sweep_when_due(self) -> int:
        if time.monotonic() < self._sweep_at:
            return 0
        self._sweep_at = time.monotonic() + settings.SWEEP_SECONDS
        return self._sweeper.sweep()

    def _look_when_due(self) -> None:
        """See, also while there is much to do, to what cannot wait for a sweep."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + settings.POLL_SECONDS
            self._sweeper.look()

    def _idle(self) -> None:
        """Rest until there is something to do, and ask for no more than that."""
        if self._claimer.met_locks:
            self._wakeup.rest(LOCKED_SECONDS)
            return
        while not self._is_stopping:
            # Workers that started together should not ask together.
            has_news = self._wakeup.wait(settings.POLL_SECONDS * random.uniform(2 / 3, 4 / 3))
            self._heartbeat.beat_when_due()
            # What is told of is claimed, not asked for.
            if has_news or self._lookout.sees_work() or self._sweep_when_due():
                break

    def _outlive(self, error: Exception) -> None:
        """Let the worker go on after a round that failed, or raise what failed."""
        self._may_hold_rows = True
        if self._patience.covers(error):
            self._patience.wait_out(error)
            return
        self._failures += 1
        if self._failures == FAILURES_MAX or database().connection.in_atomic_block:
            raise error
        said = log_words.of_error(error)
        logger.error("A round failed; the worker tries again. %s", said, exc_info=log_words.traceback_of(error))
        self._wakeup.rest(FAILURE_REST_SECONDS)

    def _note(self, error: BaseException) -> None:
        self.error = self.error or error


def _new_name() -> str:
    """Return a name for a worker: the host's, the process's, and what no other will have."""
    return f"{socket.gethostname()[:200]}-{os.getpid()}-{uuid4().hex[:12]}"
