"""``manage.py alya_worker``: work off batches and slow queries until stopped."""

from __future__ import annotations

import math
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from threading import Event
from types import FrameType
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.db.models import Count, Max, Min
from django.utils.timezone import localtime

from alya_django.engine.patience import Patience
from alya_django.engine.scope import Scope
from alya_django.engine.supervisor import Supervisor
from alya_django.engine.wakeup import Wakeup
from alya_django.engine.worker import Worker
from alya_django.exceptions import InvalidInput
from alya_django.management import arguments
from alya_django.management.batch_commands import what_broke
from alya_django.management.reload import Files, begin_anew
from alya_django.management.terminal import rows_line
from alya_django.models import BatchRow, database

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _processes(text: str) -> int:
    """Return how many processes are asked for."""
    return len(os.sched_getaffinity(0)) if text == "auto" else arguments.count(text)


def _served(scope: Scope) -> list[str]:
    """Return what a worker of a scope serves, in words; Alya's own without the names, which tell a project nothing."""
    entries = scope.registrations()
    of_project = [f"{entry} ({entry.kind.label})" for entry in entries if not entry.is_own]
    return of_project if len(of_project) == len(entries) else [*of_project, "Alya's own slow queries"]


@contextmanager
def _first_signal(act: Callable[[], None]) -> Iterator[None]:
    """Act on the first signal that wants the command to end; the second has its ordinary effect."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def act_once(signum: int, frame: FrameType | None) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        act()

    for number in SIGNALS:
        signal.signal(number, act_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Command(BaseCommand):
    help = "Works off batches and slow queries. SIGTERM or SIGINT ends it after the row in hand, a second one at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        until = parser.add_mutually_exclusive_group()
        until.add_argument(
            "--once", action="store_true", help="Work off one chunk, in this process and unsupervised, and end."
        )
        until.add_argument("--drain", action="store_true", help="End when nothing can be claimed now.")
        until.add_argument(
            "--max-rows", type=arguments.count, metavar="N", help="Replace each process after so many rows."
        )
        until.add_argument("--reload", action="store_true", help="Begin anew when a Python file changes.")
        parser.add_argument(
            "--processes",
            type=_processes,
            default=1,
            metavar="N|auto",
            help="So many workers, each in a process of its own; auto: as many as there are processors.",
        )
        parser.add_argument(
            "--app",
            action="append",
            default=[],
            help="Serve this app only; may be repeated. Without it, also alya, Alya's own.",
        )
        parser.add_argument("--op", action="append", default=[], help="Serve this op only; may be repeated.")
        parser.add_argument("--kind", choices=arguments.KINDS, help="Serve only batches, or only slow queries.")

    def handle(self, *args: Any, **options: Any) -> None:
        scope = self._scope(options)
        if options["processes"] > 1 and not database().allows_many_writers:
            raise CommandError("SQLite lets one process write at a time: --processes is 1.")
        self._say(f"Worker serves {', '.join(_served(scope))}.")
        if not self._check_server():
            return
        if options["once"]:
            self._work_once(scope)
            return
        with rows_line(sys.stdout) as on_rows:
            self._supervise(scope, on_rows, options)

    def _check_server(self) -> bool:
        """Run the checks that ask the server, once it answers; return False where a signal ends the wait for it."""
        store, stopped = database(), Event()
        with store.keep_alive(), closing(Wakeup(store, listens=False)) as wakeup:
            patience = Patience(store, wakeup, is_stopping=stopped.is_set)

            def stop() -> None:
                stopped.set()
                wakeup.wake()

            with _first_signal(stop):
                try:
                    # Django has run the checks that need no connection.
                    patience.insist(lambda: self.check(tags=[Tags.database], databases=[store.alias]))
                except Error:
                    if not stopped.is_set():
                        raise
        return not stopped.is_set()

    def _work_once(self, scope: Scope) -> None:
        worker = Worker(scope=scope, beats_alone=True)
        try:
            with _first_signal(worker.stop), worker:
                worker.run_once()
        except Exception as error:
            raise CommandError(what_broke(error)) from error

    def _supervise(self, scope: Scope, on_rows: Callable[[int], None] | None, options: dict[str, Any]) -> None:
        max_rows = options["max_rows"] or math.inf
        supervisor = Supervisor(
            Worker.drain if options["drain"] else partial(Worker.run, max_rows=max_rows),
            processes=options["processes"],
            scope=scope,
            restarts=not options["drain"],
            on_rows=on_rows,
            is_stale=Files().have_changed if options["reload"] else None,
        )
        if not supervisor.run():
            raise CommandError("The worker processes keep dying.")
        if options["drain"]:
            self._say(f"{supervisor.rows} rows ended.")
            self._say_what_waits(scope)
        if supervisor.is_stale:
            begin_anew()

    def _scope(self, options: dict[str, Any]) -> Scope:
        """Return the scope that the options narrow the worker to; each of their names has a processor."""
        kinds = [arguments.KINDS[options["kind"]]] if options["kind"] else []
        try:
            scope = Scope.of(apps=options["app"], ops=options["op"], kinds=kinds)
        except InvalidInput as error:
            raise CommandError(str(error)) from None
        unserved = scope.unserved()
        if unserved or not scope.chosen():
            narrowed = " and ".join(f"--{field} {name.replace(' ', '-')}" for field, name in unserved)
            where = f" for {narrowed}" if narrowed else ""
            raise CommandError(f"No processor is registered{where}; AppConfig.ready() is the place to register one.")
        return scope

    def _say_what_waits(self, scope: Scope) -> None:
        """Say how many rows are left because their time has not come, and when it does."""
        rows = BatchRow.objects.primary().of(entry.key for entry in scope.registrations()).waiting()
        left = rows.aggregate(count=Count("pk"), first=Min("retry_at"), last=Max("retry_at"))
        if left["count"]:
            first, last = (f"{localtime(left[name]):%Y-%m-%d %H:%M:%S}" for name in ("first", "last"))
            self._say(f"{left['count']} rows wait for another try: the first until {first}, the last until {last}.")

    def _say(self, text: str) -> None:
        """Write a line, at once also where nobody sits at a terminal."""
        self.stdout.write(text)
        self.stdout.flush()
