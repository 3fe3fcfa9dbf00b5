"""``manage.py alya_status``: show what there is, or how far one batch has come."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from time import sleep
from typing import Any

from alya_django.management import arguments
from alya_django.management.batch_commands import (
    Code,
    OperatorCommand,
    as_json,
    as_line,
    as_progress,
    as_text,
    find,
    lacking,
    stored,
)
from alya_django.management.terminal import live_text
from alya_django.models import Batch, Worker
from alya_django.status import PENDING, Status
from alya_django.validation import JSON, fold_name

WATCH_SECONDS = 1.0
LIMIT = 20


class Command(OperatorCommand):
    help = "Shows how far a batch or a slow query has come or, without an id, what is unfinished and what came last."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", nargs="?", help="The id, or its first digits.")
        super().add_arguments(parser)
        parser.add_argument("--watch", action="store_true", help="Go on showing it until it has ended, or Ctrl-C.")
        parser.add_argument("--app", help="List this app only.")
        parser.add_argument("--op", help="List this op only.")
        parser.add_argument("--limit", type=arguments.count, default=LIMIT, metavar="N", help="List so many at most.")

    def act(self, options: dict[str, Any]) -> None:
        if options["id"] is None:
            self._list(options)
        else:
            self._show(options["id"], is_watching=options["watch"])

    def _list(self, options: dict[str, Any]) -> None:
        names = {name: fold_name(options[name], name) for name in ("app", "op") if options[name] is not None}

        def look() -> tuple[str, JSON, bool]:
            listed = _with_lacks(_unfinished_and_latest(names, options["limit"]))
            lines = [as_line(batch, lacks) for batch, lacks in listed]
            return "\n".join(lines) or "Nothing.", {"batches": [_as_json(*one) for one in listed]}, False

        if options["watch"]:
            self._watch(look)
        else:
            self.tell(*look()[:2])

    def _show(self, batch_id: str, *, is_watching: bool) -> None:
        def look() -> tuple[str, JSON, bool]:
            ((batch, lacks),) = _with_lacks([find(batch_id)])
            return as_progress(batch, lacks), _as_json(batch, lacks), Status(batch.status).is_final

        if is_watching:
            self._watch(look)
        ((batch, lacks),) = _with_lacks([find(batch_id)])
        if not (is_watching and self.is_json):
            self.tell(as_text(batch, lacks), _as_json(batch, lacks))
        status = Status(batch.status)
        if status is not Status.SUCCESS:
            # That is the answer, and no error.
            sys.exit(Code.FAILED if status.is_final else Code.UNFINISHED)

    def _watch(self, look: Callable[[], tuple[str, JSON, bool]]) -> None:
        """Look again and again, and show what has changed, until it has ended or nobody wants to see more."""
        with suppress(KeyboardInterrupt), live_text(sys.stdout) as show:
            shown, is_over = None, False
            while not is_over:
                text, value, is_over = look()
                if value != shown:
                    self.tell(text, value) if self.is_json or show is None else show(text)
                    shown = value
                if not is_over:
                    sleep(WATCH_SECONDS)


def _with_lacks(batches: list[Batch]) -> list[tuple[Batch, str]]:
    served = Worker.objects.primary().alive().ops()
    return [(batch, lacking(batch, served)) for batch in batches]


def _as_json(batch: Batch, lacks: str) -> JSON:
    return {**as_json(batch), "lacks": lacks or None}


def _unfinished_and_latest(names: dict[str, str], limit: int) -> list[Batch]:
    """Return what is queued or in progress, and then what was requested last, each the latest first."""
    latest = stored().filter(**names).order_by("-requested_at", "id")
    unfinished = list(latest.filter(status__in=sorted(PENDING))[:limit])
    return [*unfinished, *(batch for batch in latest[:limit] if batch not in unfinished)][:limit]
