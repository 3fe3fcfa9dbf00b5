"""Keep workers running in processes of their own: see at once when one dies, and kill one whose row takes too long."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from types import FrameType
from typing import NoReturn, TypeVar

from django.db import connections

from alya_django import log_words
from alya_django.conf import settings
from alya_django.db import Database
from alya_django.engine.recover import Recovery
from alya_django.engine.scope import Scope
from alya_django.engine.watch import Watch
from alya_django.engine.worker import Worker
from alya_django.models import database

logger = logging.getLogger("alya_django.engine")

Work = Callable[[Worker], object]
Answer = TypeVar("Answer")

STOP = (signal.SIGTERM, signal.SIGINT)
HANDLED = frozenset({*STOP, signal.SIGCHLD})
EARLY_SECONDS = 60.0
EARLY_DEATHS_MAX = 5
REST_SECONDS_MAX = 30.0
SOON_SECONDS = 0.1
# A COMMIT that was under way when its process died shows what it did only now.
LATE_SECONDS = 1.0
STALE_SECONDS = 1.0
TELL_SECONDS = 0.5
LOG_ROWS_SECONDS = 60.0


class Child:
    """A process that runs one worker, as its supervisor sees it."""

    def __init__(self, pid: int, watch: Watch) -> None:
        self.pid = pid
        self.watch = watch
        self.began_at = time.monotonic()
        self.overdue: dict[int, float] = {}

    def kill(self, signum: signal.Signals) -> None:
        """Send a signal; one that has ended has no use for it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)


class Seat:
    """A place for one child after another; ``deaths`` counts those that died early in a row, with nothing in hand."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.deaths = 0
        self.begin_at = time.monotonic()
        self.is_done = False

    def end(self, *, is_early: bool) -> None:
        """Leave the seat empty, for a while if children keep dying there early."""
        self.child = None
        self.deaths = self.deaths + 1 if is_early else 0
        rest = min(2.0 ** (self.deaths - 2), REST_SECONDS_MAX) if self.deaths > 1 else 0.0
        self.begin_at = time.monotonic() + rest


class Supervisor:
    """
    Run ``work`` with a worker in each of so many processes, and recover the rows of the dead.

    It has one thread and runs no processor: what kills a worker does not kill it. Children end gently when
    it is told to stop, or when it dies itself. One that ends by itself is followed by another if the work
    ``restarts``. It stops, too, when ``is_stale`` says so, which is asked about once a second.
    """

    def __init__(
        self,
        work: Work,
        *,
        processes: int,
        scope: Scope,
        restarts: bool = True,
        on_rows: Callable[[int], None] | None = None,
        is_stale: Callable[[], bool] | None = None,
    ) -> None:
        self._work = work
        self._scope = scope
        self._restarts = restarts
        self._on_rows = on_rows
        self._asks_stale = is_stale
        self.is_stale = False
        self._seats = [Seat() for _ in range(processes)]
        self._limits = [entry.options.seconds for entry in scope.registrations() if entry.options.seconds]
        self._is_stopping = False
        self._has_given_up = False
        self._recover_at = time.monotonic()
        self._late_rows_at = -math.inf
        self._back_off = 1.0
        self._dead: list[tuple[float, int, dict[int, float]]] = []
        self._rows_of_dead = self._rows_told = self._rows_logged = 0
        self._logged_at = time.monotonic()

    @property
    def rows(self) -> int:
        """How many rows have ended."""
        return self._rows_of_dead + sum(child.watch.rows for child in self._children())

    def run(self) -> bool:
        """Keep the children running until all are done; return False if it gave up because they keep dying."""
        self._store: Database = database()
        self._recovery = Recovery(self._store)
        if not self._store.allows_many_writers:
            self._patiently(self._recovery.bury_gone)
        # Open as long as this process lives and supervises: the children read its end.
        self._orphaned, self._alive = os.pipe()
        try:
            with self._handling_signals():
                self._supervise()
        finally:
            os.close(self._alive)
            os.close(self._orphaned)
        return not self._has_given_up

    def stop(self) -> None:
        """Let all children end after the row in hand."""
        self._is_stopping = True
        for child in self._children():
            child.kill(signal.SIGTERM)

    def _supervise(self) -> None:
        while True:
            self._stop_if_stale()
            self._reap()
            self._recover_when_due()
            self._fill_seats()
            is_over = self._is_over()
            self._log_rows(at_once=is_over)
            if is_over:
                return
            self._rest()
            self._kill_overdue()

    def _stop_if_stale(self) -> None:
        if self._asks_stale is not None and not self._is_stopping and self._asks_stale():
            self.is_stale = True
            self.stop()

    def _log_rows(self, *, at_once: bool) -> None:
        """Log how many rows have ended since it did so last, if any: every minute, and at the end."""
        rows, seconds = self.rows - self._rows_logged, time.monotonic() - self._logged_at
        if rows and (at_once or seconds >= LOG_ROWS_SECONDS):
            self._rows_logged, self._logged_at = self.rows, time.monotonic()
            logger.info("%s rows have ended, %s of them in the last %.0f s.", self.rows, rows, seconds)

    def _is_over(self) -> bool:
        is_done = all(seat.is_done for seat in self._seats) and not self._dead
        return not self._children() and (self._is_stopping or is_done)

    def _children(self) -> list[Child]:
        return [seat.child for seat in self._seats if seat.child is not None]

    # What its children do.

    def _reap(self) -> None:
        """Take in which children have ended, and see to the rows of those that died."""
        for seat in self._seats:
            child = seat.child
            if child is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._on_ended(seat, child, os.waitstatus_to_exitcode(status))
        if self._on_rows is not None and self.rows != self._rows_told:
            self._on_rows(self.rows - self._rows_told)
            self._rows_told = self.rows

    def _on_ended(self, seat: Seat, child: Child, code: int) -> None:
        number = child.watch.number
        # A row that ended just before the kill is none that took too long.
        still = child.watch.overdue(time.monotonic())
        overdue = {row: limit for row, limit in child.overdue.items() if row in still}
        has_left = child.watch.has_left
        self._rows_of_dead += child.watch.rows
        child.watch.close()
        if has_left:
            seat.end(is_early=False)
            # One that was about to end when rows came to light has not seen them.
            seat.is_done = not self._restarts and child.began_at > self._late_rows_at
            return
        logger.error("The worker process %s has died (%s).", child.pid, code)
        recovered = self._bury(number, overdue) if number else 0
        lived = time.monotonic() - child.began_at
        seat.end(is_early=lived < EARLY_SECONDS and not (recovered or child.overdue))
        if sum(seat.deaths for seat in self._seats) >= EARLY_DEATHS_MAX:
            logger.error("%s worker processes have died within a minute of their beginning.", EARLY_DEATHS_MAX)
            self._has_given_up = True
            self.stop()

    def _fill_seats(self) -> None:
        for seat in self._seats:
            if not (self._is_stopping or seat.is_done or seat.child) and time.monotonic() >= seat.begin_at:
                seat.child = self._begin_child()
                if self._is_stopping:
                    # The signal came while it was born, when nobody could pass it on.
                    seat.child.kill(signal.SIGTERM)

    def _begin_child(self) -> Child:
        watch = Watch()
        # Two processes must not speak on one connection.
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork() or self._be_child(watch)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        return Child(pid, watch)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for child in self._children():
            if not child.overdue and (overdue := child.watch.overdue(now)):
                child.overdue = overdue
                logger.error("The worker process %s is killed: a row takes too long.", child.pid)
                child.kill(signal.SIGKILL)

    # What it does for the rows of the dead.

    def _bury(self, number: int, overdue: dict[int, float]) -> int:
        """Requeue the rows of a dead worker, and once more a little later; return how many there were."""
        self._dead.append((time.monotonic() + LATE_SECONDS, number, overdue))
        recovered = self._patiently(lambda: self._recovery.bury(number, overdue).rows)
        return recovered or 0

    def _recover_when_due(self) -> None:
        now = time.monotonic()
        for late in [late for late in self._dead if late[0] <= now]:
            self._dead.remove(late)
            self._bury_late(*late[1:])
        if now >= self._recover_at and (self._store.allows_many_writers or not self._children()):
            is_all = self._patiently(lambda: self._recovery.recover().is_all)
            self._recover_at = (
                now + {None: self._back_off, False: SOON_SECONDS, True: settings.HEARTBEAT_SECONDS}[is_all]
            )

    def _bury_late(self, number: int, overdue: dict[int, float]) -> None:
        """Look once more for rows of a dead worker, later again if that was not all; somebody is to work them off."""
        recovered = self._patiently(partial(self._recovery.bury, number, overdue))
        if recovered is None or not recovered.is_all:
            rest = self._back_off if recovered is None else SOON_SECONDS
            self._dead.append((time.monotonic() + rest, number, overdue))
        if recovered is not None and recovered.rows:
            self._late_rows_at = time.monotonic()
            for seat in self._seats:
                seat.is_done = False

    def _patiently(self, act: Callable[[], Answer]) -> Answer | None:
        """Act, and return None if the database is away: it is asked again after a while."""
        try:
            answer = act()
        except Exception as error:
            if not self._store.is_away(error):
                raise
            logger.error("The rows of the dead wait: the database does not answer. %s", log_words.of_error(error))
            self._store.connection.close()
            self._back_off = min(self._back_off * 2, REST_SECONDS_MAX)
            return None
        self._back_off = 1.0
        return answer

    # How it waits.

    def _rest(self) -> None:
        """Wait until a signal comes or something is due; for a row that may take too long, as long as it may."""
        now = time.monotonic()
        due = [self._recover_at if self._store.allows_many_writers else now + settings.HEARTBEAT_SECONDS]
        due += [now + STALE_SECONDS] if self._asks_stale is not None else []
        due += [now + TELL_SECONDS] if self._on_rows is not None else []
        due += [late for late, _, _ in self._dead]
        due += [seat.begin_at for seat in self._seats if seat.child is None and not seat.is_done]
        # A row that begins after this look cannot be overdue before the shortest limit has passed.
        due += [now + limit for limit in self._limits]
        due += [deadline for child in self._children() if (deadline := child.watch.next_deadline()) is not None]
        seconds = max(min(due) - now, 0.01)
        select.select([self._news], [], [], seconds)
        with suppress(BlockingIOError):
            self._news.recv(4_096)

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        """Let signals end a rest, and those that stop do so: the first gently, the second at once."""
        self._news, news = socket.socketpair()
        self._news.setblocking(False)
        news.setblocking(False)
        before = {signum: signal.getsignal(signum) for signum in HANDLED}
        wakeup = signal.set_wakeup_fd(news.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        for signum in STOP:
            signal.signal(signum, self._on_stop)
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(wakeup)
            self._news.close()
            news.close()

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        if not self._is_stopping:
            self.stop()
            return
        for child in self._children():
            child.kill(signal.SIGKILL)
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    # What a child does.

    def _be_child(self, watch: Watch) -> NoReturn:
        code = 1
        try:
            os.close(self._alive)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            worker = Worker(scope=self._scope, beats_alone=True, watch=watch)
            signal.signal(signal.SIGTERM, lambda signum, frame: worker.stop())
            # A Ctrl-C reaches all processes of a terminal; the supervisor says what it means.
            signal.signal(signal.SIGINT, lambda signum, frame: None)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            Thread(target=self._stop_with_supervisor, args=(worker,), daemon=True).start()
            with worker:
                self._work(worker)
            watch.leave()
            code = 0
        except BaseException as error:
            logger.error(
                "A worker process ends: %s", log_words.of_error(error), exc_info=log_words.traceback_of(error)
            )
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _stop_with_supervisor(self, worker: Worker) -> None:
        """Stop the worker once nobody holds the other end of the pipe any more."""
        os.read(self._orphaned, 1)
        worker.stop()
