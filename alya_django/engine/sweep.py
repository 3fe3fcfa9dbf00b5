"""See to what was left: rows due again, batches nobody finished or told of, ops that nobody serves."""

from __future__ import annotations

import logging
import time

from alya_django.conf import settings
from alya_django.engine.deliver import Deliverer
from alya_django.engine.finish import Finisher
from alya_django.engine.process import engine_message
from alya_django.engine.scope import Scope
from alya_django.models import Batch, BatchRow, Worker
from alya_django.querysets import BatchQuerySet, Op
from alya_django.registry import registry
from alya_django.status import PENDING, Kind

logger = logging.getLogger("alya_django.engine")

ROUND_BATCHES = 100
PROCESSOR_NAMES = {Kind.BATCH: "BatchProcessor", Kind.SLOW_QUERY: "SlowQueryProcessor"}


class Sweeper:
    """Look, for one worker, after the batches that its own chunks do not bring to their end."""

    def __init__(self, finisher: Finisher, deliverer: Deliverer, scope: Scope) -> None:
        self._finisher = finisher
        self._deliverer = deliverer
        self._scope = scope
        self._unserved_since: dict[Op, float] = {}

    def look(self) -> int:
        """See to what cannot wait for a sweep; return how many batches moved."""
        moved = self._served().wake(BatchRow.objects.primary().due())
        for batch_id in self._served().complete().unattended().values_list("pk", flat=True)[:ROUND_BATCHES]:
            moved += self._finisher.finish(batch_id)
        return moved + self._deliverer.deliver(self._served())

    def sweep(self) -> int:
        """See to everything; return how many batches moved."""
        return self.look() + self._give_up_unserved()

    def _served(self) -> BatchQuerySet:
        return Batch.objects.primary().of(entry.key for entry in self._scope.registrations())

    def _give_up_unserved(self) -> int:
        """Fail the batches whose op no worker has served for CONFIG_FAILURE_SECONDS."""
        now = time.monotonic()
        unserved = self._unserved()
        self._unserved_since = {op: self._unserved_since.get(op, now) for op in unserved}
        moved = 0
        for op, since in self._unserved_since.items():
            if now - since >= settings.CONFIG_FAILURE_SECONDS:
                moved += self._give_up_op(*op)
        return moved

    def _unserved(self) -> set[Op]:
        batches = self._scope.narrow(Batch.objects.primary()).order_by()
        # Each of the two has an index of its own.
        pending, untold = batches.unheld().filter(status__in=sorted(PENDING)), batches.not_marked_done()
        op = ("kind", "app", "op")
        asked = set(pending.values_list(*op).union(untold.values_list(*op))) - {entry.key for entry in registry}
        return asked - Worker.objects.primary().alive().ops() if asked else asked

    def _give_up_op(self, kind: str, app: str, op: str) -> int:
        text = f"No {PROCESSOR_NAMES[Kind(kind)]} is registered for app {app!r} and op {op!r}."
        batches = Batch.objects.primary().filter(kind=kind, app=app, op=op)
        moved = 0
        for batch_id in batches.unheld().filter(status__in=PENDING).values_list("pk", flat=True)[:ROUND_BATCHES]:
            logger.error("%s Batch %s fails.", text, batch_id)
            self._finisher.give_up(batch_id, engine_message(2, "configerror", text))
            moved += 1
        return moved + self._deliverer.deliver(batches)
