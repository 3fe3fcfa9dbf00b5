"""``manage.py alya_worker``: work off batches and slow queries until stopped."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand

from alya_django.engine.worker import Worker
from alya_django.models import database

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Command(BaseCommand):
    help = "Works off batches and slow queries. SIGTERM or SIGINT ends it after the row in hand, a second one at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        until = parser.add_mutually_exclusive_group()
        until.add_argument("--once", action="store_true", help="Work off one chunk and end.")
        until.add_argument("--drain", action="store_true", help="End when nothing can be claimed now.")
        parser.add_argument("--app", help="Serve this app only.")
        parser.add_argument("--op", help="Serve this op only.")

    def handle(self, *args: Any, **options: Any) -> None:
        # Django has run the checks that need no connection; these ask the server.
        self.check(tags=[Tags.database], databases=[database().alias])
        worker = Worker(app=options["app"], op=options["op"], beats_alone=True)

        def stop(signum: int, frame: FrameType | None) -> None:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            worker.stop()

        for number in SIGNALS:
            signal.signal(number, stop)
        with worker:
            if options["once"]:
                worker.run_once()
            elif options["drain"]:
                worker.drain()
            else:
                worker.run()
