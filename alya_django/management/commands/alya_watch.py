"""``manage.py alya_watch``: receive what arrives in directories, until stopped."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from alya_django.answers import Receipt
from alya_django.conf import settings
from alya_django.intake.patterns import configured_mappings
from alya_django.intake.watch import Watcher
from alya_django.management import arguments
from alya_django.management.batch_commands import OperatorCommand, printed, receipt_as_json
from alya_django.readable import printable

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Command(OperatorCommand):
    help = (
        "Receives the files that arrive in directories, those of the setting WATCH_DIRECTORIES unless some are named. "
        "SIGTERM or SIGINT ends it after the file in hand, a second one at once."
    )
    # It runs for as long as workers do, and asks of the project what they ask.
    requires_system_checks = "__all__"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directories", nargs="*", metavar="directory", help="Look here, and nowhere else.")
        super().add_arguments(parser)
        parser.add_argument(
            "--match",
            action="append",
            type=arguments.mapping,
            metavar="PATTERN=TYPE",
            help="Files that match the pattern are of the type; may be repeated, and goes before WATCH_TYPES.",
        )
        parser.add_argument("--once", action="store_true", help="Receive what is there, and end.")
        parser.add_argument("--seconds", type=arguments.interval, help="Look so often, not every WATCH_SECONDS.")
        parser.add_argument(
            "--age", type=arguments.seconds, help="Take files unchanged for so long, not WATCH_AGE_SECONDS."
        )

    def act(self, options: dict[str, Any]) -> None:
        age, seconds = options["age"], options["seconds"]
        watcher = Watcher(
            options["directories"] or settings.WATCH_DIRECTORIES,
            [*(options["match"] or ()), *configured_mappings()],
            age_seconds=settings.WATCH_AGE_SECONDS if age is None else age,
            on_received=self._on_received,
        )
        for number in SIGNALS:
            signal.signal(number, lambda signum, frame: self._stop(watcher))
        if options["once"]:
            watcher.run_once()
            if watcher.failures:
                raise CommandError(f"{watcher.failures:,} failures; see the log.")
            return
        watched = ", ".join(map(printable, watcher.directories))
        self.tell(f"Watches {watched}.", {"directories": [str(directory) for directory in watcher.directories]})
        watcher.run(seconds=settings.WATCH_SECONDS if seconds is None else seconds)

    def _on_received(self, source: Path, file_type: str, receipt: Receipt) -> None:
        what = {"path": str(source), "type": file_type}
        if receipt.accepted:
            text = f"batch {receipt.batch_id}, {receipt.nrows:,} rows, {receipt.nfaulty:,} faulty lines"
        else:
            text = f"rejected: {printed(receipt.reason)}"
        self.tell(f"{printable(source)} ({file_type}): {text}", {**what, **receipt_as_json(receipt)})

    def _stop(self, watcher: Watcher) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        watcher.stop()
