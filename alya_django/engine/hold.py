"""Hold a batch whose rows fail by the many: nothing more is claimed from it until somebody releases it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from alya_django import status_cache
from alya_django.engine.claim import Chunk
from alya_django.engine.process import Processed
from alya_django.models import Batch, BatchProgress, BatchRow
from alya_django.status import Status

logger = logging.getLogger("alya_django.engine")


class Holder:
    """Look, for one worker, after the batches of ops that have ``max_failed``."""

    def look(self, chunk: Chunk, done: Iterable[Processed]) -> bool:
        """
        Hold the batch if more of its rows have failed than may, and return whether it did.

        It comes after the commit of what was recorded: whoever commits last sees the failures of all.
        """
        if chunk.registration.options.max_failed is None or not any(map(_has_failed, done)):
            return False
        batches = Batch.objects.primary().filter(pk=chunk.batch.pk)
        nforgiven, nfailed = batches.failures(BatchProgress.objects.primary())
        nfailed -= nforgiven
        if nfailed <= _allowed(chunk) or not _has_more(chunk):
            return False
        reason = f"{nfailed} of {chunk.batch.nrows} rows have failed, and {_in_words(chunk)} may."
        if not batches.hold(reason, nforgiven=nforgiven):
            return False
        status_cache.drop(chunk.batch.pk)
        logger.warning("%s %s is held: %s", chunk.registration, chunk.batch.pk, reason)
        return True


def _has_failed(processed: Processed) -> bool:
    return processed.delay is None and processed.ending.status is Status.FAILED


def _allowed(chunk: Chunk) -> float:
    """Return how many rows of the batch may fail."""
    max_failed = chunk.registration.options.max_failed or 0
    return max_failed if isinstance(max_failed, int) else max_failed * chunk.batch.nrows


def _in_words(chunk: Chunk) -> str:
    max_failed = chunk.registration.options.max_failed or 0
    return f"{max_failed}" if isinstance(max_failed, int) else f"{max_failed * 100:g} %"


def _has_more(chunk: Chunk) -> bool:
    """Tell whether a row of the batch is still to be claimed; each of the two questions has an index of its own."""
    rows = BatchRow.objects.primary().filter(batch=chunk.batch.pk)
    return any(
        found.order_by(order).values_list("line")[:1]
        for found, order in ((rows.queued(), "line"), (rows.requeued(), "retry_at"))
    )
