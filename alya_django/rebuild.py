"""Make an output file of a finished batch again, from what its rows have kept."""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID, uuid4

from alya_django import outputs, status_cache
from alya_django.answers import OutputFile
from alya_django.exceptions import InvalidState, NotFound
from alya_django.join import join
from alya_django.models import Batch, database
from alya_django.registry import registry
from alya_django.status import Kind, Status

logger = logging.getLogger("alya_django")

LEASE = timedelta(minutes=2)
COPY_BYTES_PER_SECOND = 1_000_000


def rebuild_output(batch_id: UUID, name: str) -> OutputFile:
    """Make a file under a token of its own, put it in the other's place, and delete that; see ``batches``."""
    batch = _find(batch_id, name)
    attempt = uuid4()
    mine = Batch.objects.primary().filter(pk=batch_id)
    if not mine.take_finish(attempt, LEASE):
        raise _refused(batch, "is being worked on by somebody else")

    def renew(size: int) -> None:
        mine.renew_finish(attempt, LEASE + timedelta(seconds=size // COPY_BYTES_PER_SECOND))

    try:
        file = join(batch, attempt, renew=renew, only=name)[name]
        _swap(batch_id, attempt, name, file)
    except BaseException:
        mine.leave_finish(attempt)
        outputs.delete_attempt(batch_id, attempt)
        raise
    if file.checksum != batch.saved_files()[name].checksum:
        logger.warning("The output file %r of %s is not the same as before: its format has changed.", name, batch_id)
    return file


def _find(batch_id: UUID, name: str) -> Batch:
    batch = Batch.objects.primary().find(batch_id, Kind.BATCH)
    if not Status(batch.status).is_final:
        raise _refused(batch, "has not ended")
    if name not in batch.output_files:
        raise NotFound(f"The batch {batch_id} has no output file {name!r}.")
    if registry.find(Kind.BATCH, batch.app, batch.op) is None:
        # What stands around the lines is known to the processor alone.
        raise _refused(batch, "is of an op that is not registered here")
    return batch


def _swap(batch_id: UUID, attempt: UUID, name: str, file: OutputFile) -> None:
    tables = database()
    with tables.transaction():
        batch = Batch.objects.primary().lock(batch_id, Kind.BATCH)
        if batch.finisher != attempt:
            raise _refused(batch, "was taken over by somebody else")
        replaced = batch.saved_files()[name].object_name
        batch.output_files = {**batch.output_files, name: file.as_json()}
        batch.finisher = batch.finisher_until = None
        batch.save(using=tables.alias, update_fields=["output_files", "finisher", "finisher_until"])
        status_cache.drop(batch_id)
        tables.after_commit(lambda: status_cache.store(batch_id, batch.summary()))
        tables.after_commit(lambda: outputs.delete([replaced]))


def _refused(batch: Batch, what: str) -> InvalidState:
    return InvalidState(f"The batch {batch.pk} {what}.", status=Status(batch.status))
