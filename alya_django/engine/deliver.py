"""Tell of batches that have ended: the cache, the project's receivers, and the processor's ``mark_done``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from traceback import format_exception
from typing import Any
from uuid import UUID, uuid4

from django.db.models.functions import Now

from alya_django import lifecycle, log_words
from alya_django.db import Database
from alya_django.engine.init_blocks import InitBlocks, InitFailed
from alya_django.faults import spare_ctrl_c
from alya_django.models import Batch
from alya_django.querysets import BatchQuerySet
from alya_django.registry import Registration, registry
from alya_django.status import Kind

logger = logging.getLogger("alya_django.engine")

LEASE = timedelta(minutes=2)
DELIVERIES = 100
ERROR_MAX = 10_000


class Deliverer:
    """
    Deliver the ends of batches for one worker: the news at most once, ``mark_done`` at least once.

    What ``mark_done`` raises goes to ``on_error``. Where an app has no init block just now, its ends wait.
    """

    def __init__(
        self, store: Database, init_blocks: InitBlocks, on_error: Callable[[BaseException], None] = lambda error: None
    ) -> None:
        self._store = store
        self._init_blocks = init_blocks
        self._on_error = on_error

    def tell(self, batch_id: UUID, finisher: UUID) -> None:
        """Let the cache, the project's receivers and the processor know of a final state, now committed."""
        batch = Batch.objects.primary().get(pk=batch_id)
        lifecycle.tell_finished(batch)
        if self._init_blocks.is_usable(batch.app):
            self._mark_done(batch, finisher)
        else:
            Batch.objects.primary().filter(pk=batch_id).leave_finish(finisher)

    def deliver(self, batches: BatchQuerySet) -> int:
        """Call ``mark_done`` for finished batches that nobody has seen to; return for how many."""
        delivered = 0
        for _ in range(DELIVERIES):
            usable = batches.exclude(app__in=self._init_blocks.resting())
            batch = usable.not_marked_done().unattended().order_by("done_at").first()
            if batch is None:
                break
            finisher = uuid4()
            mine = Batch.objects.primary().filter(pk=batch.pk).not_marked_done()
            if mine.take_finish(finisher, LEASE) and self._mark_done(batch, finisher):
                delivered += 1
        return delivered

    def _mark_done(self, batch: Batch, finisher: UUID) -> bool:
        registration = registry.find(Kind(batch.kind), batch.app, batch.op)
        error = ""
        if registration is None:
            logger.warning("No processor for %s/%s: %s ended without mark_done.", batch.app, batch.op, batch.pk)
        else:
            try:
                block = self._init_blocks.get(batch.app)
            except InitFailed as failure:
                said = log_words.of_error(failure.cause)
                logger.warning("mark_done of %s waits, the initializer of its app failed: %s", batch.pk, said)
                Batch.objects.primary().filter(pk=batch.pk).leave_finish(finisher)
                return False
            error = self._call(registration, batch, block)
        # Whoever has called it to the end has called it, also if it took longer than the lease.
        Batch.objects.primary().filter(pk=batch.pk).not_marked_done().update(
            marked_done_at=Now(), mark_done_error=error, finisher=None, finisher_until=None
        )
        return True

    def _call(self, registration: Registration, batch: Batch, block: Any) -> str:
        """Call ``mark_done`` and return its traceback, empty if all went well."""
        try:
            self._store.guarded(registration.mark_done)(batch.details(init_block=block))
        except BaseException as error:
            spare_ctrl_c(error)
            said = log_words.of_error(error)
            logger.error("mark_done of %s failed: %s", batch.pk, said, exc_info=log_words.traceback_of(error))
            self._on_error(error)
            return "".join(format_exception(error))[-ERROR_MAX:].replace("\0", "")
        return ""
