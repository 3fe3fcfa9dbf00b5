"""``manage.py alya_worker``: work off batches and slow queries until stopped."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError
from django.db import router

from alya_django.engine.scope import Scope
from alya_django.engine.worker import Worker
from alya_django.exceptions import InvalidInput
from alya_django.management.terminal import rows_line
from alya_django.models import Batch
from alya_django.status import Kind

KINDS = {"batch": Kind.BATCH, "slow-query": Kind.SLOW_QUERY}
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Command(BaseCommand):
    help = "Works off batches and slow queries. SIGTERM or SIGINT ends it after the row in hand, a second one at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        until = parser.add_mutually_exclusive_group()
        until.add_argument("--once", action="store_true", help="Work off one chunk and end.")
        until.add_argument("--drain", action="store_true", help="End when nothing can be claimed now.")
        parser.add_argument("--app", action="append", default=[], help="Serve this app only; may be repeated.")
        parser.add_argument("--op", action="append", default=[], help="Serve this op only; may be repeated.")
        parser.add_argument("--kind", choices=KINDS, help="Serve only batches, or only slow queries.")

    def handle(self, *args: Any, **options: Any) -> None:
        # Django has run the checks that need no connection; these ask the server.
        self.check(tags=[Tags.database], databases=[router.db_for_write(Batch)])
        with rows_line(sys.stdout) as on_rows:
            self._work(self._worker(self._scope(options), on_rows), options)

    def _work(self, worker: Worker, options: dict[str, Any]) -> None:
        for number in SIGNALS:
            signal.signal(number, lambda signum, frame: self._stop(worker))
        with worker:
            if options["once"]:
                worker.run_once()
            elif options["drain"]:
                rows = worker.drain()
                self._say(f"{rows} rows ended.")
            else:
                worker.run()

    def _scope(self, options: dict[str, Any]) -> Scope:
        """Return the scope that the options narrow the worker to; each of their names has a processor."""
        kinds = [KINDS[options["kind"]]] if options["kind"] else []
        try:
            scope = Scope.of(apps=options["app"], ops=options["op"], kinds=kinds)
        except InvalidInput as error:
            raise CommandError(str(error)) from None
        unserved = scope.unserved()
        if unserved or not scope.registrations():
            narrowed = " and ".join(f"--{field} {name.replace(' ', '-')}" for field, name in unserved)
            where = f" for {narrowed}" if narrowed else ""
            raise CommandError(f"No processor is registered{where}; AppConfig.ready() is the place to register one.")
        return scope

    def _worker(self, scope: Scope, on_rows: Callable[[int], None]) -> Worker:
        """Return a worker, and say what it serves."""
        worker = Worker(scope=scope, beats_alone=True, on_rows=on_rows)
        served = ", ".join(f"{entry} ({entry.kind.label})" for entry in scope.registrations())
        self._say(f"Worker {worker.name} serves {served}.")
        return worker

    def _say(self, text: str) -> None:
        """Write a line, at once also where nobody sits at a terminal."""
        self.stdout.write(text)
        self.stdout.flush()

    def _stop(self, worker: Worker) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        worker.stop()
