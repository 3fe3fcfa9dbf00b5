"""End batches whose rows have all ended: count, join the output files, write the final state."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.db import DatabaseError, InterfaceError
from django.db.models.functions import Now

from alya_django import join, log_words, outputs
from alya_django.answers import ErrorMessage, OutputFile
from alya_django.db import Database
from alya_django.engine.claim import Chunk
from alya_django.engine.deliver import LEASE, Deliverer
from alya_django.engine.process import Processed, raised, to_record
from alya_django.engine.record import Recorder
from alya_django.engine.totals import succeeded
from alya_django.exceptions import FormatFailed
from alya_django.models import Batch
from alya_django.status import Status

logger = logging.getLogger("alya_django.engine")

COPY_BYTES_PER_SECOND = 1_000_000
STORAGE_REST_SECONDS = 30.0


class Closing(NamedTuple):
    """An attempt to finish a slow query; ``ended`` is 1 if it is the one that counts."""

    query_id: UUID
    finisher: UUID
    output_files: Mapping[str, OutputFile]
    ended: int


class Finisher:
    """
    Finish batches for one worker.

    Every attempt has a token and a lease on the batch; no lock is held while files are copied. What the storage
    raises goes to ``on_error``: what it cannot take now waits, and for STORAGE_REST_SECONDS nothing else is offered
    to it.
    """

    def __init__(
        self,
        store: Database,
        recorder: Recorder,
        deliverer: Deliverer,
        on_error: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._deliverer = deliverer
        self._on_error = on_error
        self._storage_rests_until = 0.0

    def finish(self, batch_id: UUID) -> bool:
        """Finish a batch if all its rows have ended and nobody else is at it; return whether it did."""
        if not self._store.is_complete(batch_id):
            return False
        if self._storage_rests() and self._has_output_lines(batch_id):
            return False
        finisher = uuid4()
        with self._store.transaction():
            batches = Batch.objects.primary().filter(pk=batch_id)
            batch = batches.locked().get()
            others = batch.finisher
            # Looked at again under the lock: whoever records last sees all that was recorded.
            if not batches.complete().take_finish(finisher, LEASE):
                return False
        totals = succeeded(batch, lambda: batches.renew_finish(finisher, LEASE))
        output_files = self._try_to_join(batch_id, finisher)
        if output_files is None:
            return False
        if not self._close(batch_id, finisher, output_files, **totals):
            outputs.delete(file.object_name for file in output_files.values())
            return False
        if others:
            outputs.delete_other_attempts(batch_id, finisher)
        self._deliverer.tell(batch_id, finisher)
        return True

    def close_slow_query(self, chunk: Chunk, processed: Processed) -> Closing | None:
        """Record the row of a slow query and finish it, in one transaction; None if its files have to wait."""
        finisher = uuid4()
        try:
            processed, output_files = self._save_files(chunk.batch.pk, finisher, processed)
        except Exception as error:
            if not _is_outage(error):
                raise
            self._on_outage(chunk.batch.pk, error)
            self._recorder.requeue(chunk.batch.pk, chunk.claim, delay=STORAGE_REST_SECONDS)
            return None
        ended = self._recorder.insist(lambda: self._close_slow_query(chunk, finisher, processed, output_files))
        return Closing(chunk.batch.pk, finisher, output_files, ended)

    def tell_of_slow_query(self, closing: Closing | None) -> int:
        """Tell of a slow query that was finished, now committed; return 1, or 0 if it was not."""
        if closing is None:
            return 0
        query_id, finisher, output_files, ended = closing
        if ended:
            self._deliverer.tell(query_id, finisher)
        # Where the connection was lost at the commit, an earlier time may have been the one that counts.
        elif output_files and Batch.objects.primary().get(pk=query_id).saved_files() != output_files:
            outputs.delete_attempt(query_id, finisher)
        return ended

    def drop_files(self, closing: Closing | None) -> None:
        """Delete the files of a slow query's closing that was rolled back."""
        if closing is not None and closing.output_files:
            outputs.delete_attempt(closing.query_id, closing.finisher)

    def give_up(self, batch_id: UUID, message: ErrorMessage, *, claim: int | None = None) -> None:
        """Fail what is left of a batch for an error of configuration, and finish it as any other."""
        Batch.objects.primary().filter(pk=batch_id).start()
        self._recorder.fail_rest(batch_id, message, claim=claim)
        self.finish(batch_id)

    def _save_files(
        self, query_id: UUID, finisher: UUID, processed: Processed
    ) -> tuple[Processed, dict[str, OutputFile]]:
        """Save the files of a slow query's answer; one that cannot be read, being closed, fails the query."""
        output_files: dict[str, OutputFile] = {}
        try:
            for name, file in processed.output_files.items():
                output_files[name] = outputs.save_given(query_id, finisher, name, file)
        except (TypeError, ValueError) as error:
            outputs.delete_attempt(query_id, finisher)
            return raised(processed.ending.row_id, error), {}
        return processed, output_files

    def _close_slow_query(
        self, chunk: Chunk, finisher: UUID, processed: Processed, output_files: Mapping[str, OutputFile]
    ) -> int:
        query_id = chunk.batch.pk
        with self._recorder.gate(query_id):
            recorded = self._recorder.write(query_id, chunk.claim, *to_record([processed]))
            if not recorded or processed.delay is not None:
                return 0
            Batch.objects.primary().filter(pk=query_id).take_finish(finisher, LEASE)
            self._close(query_id, finisher, output_files)
        return recorded

    def _close(self, batch_id: UUID, finisher: UUID, output_files: Mapping[str, OutputFile], **totals: Any) -> bool:
        """Write the final state, guarded by the finisher's token; return whether it still held."""
        batches = Batch.objects.primary().filter(pk=batch_id)
        counts = batches.get().counts()
        closed = batches.filter(finisher=finisher, status=Status.IN_PROGRESS).update(
            status=Status.of_finished(nfailed=counts["nfailed"]),
            output_files={name: file.as_json() for name, file in output_files.items()},
            done_at=Now(),
            finisher_until=Now() + LEASE,
            **counts,
            **totals,
        )
        return bool(closed)

    def _try_to_join(self, batch_id: UUID, finisher: UUID) -> dict[str, OutputFile] | None:
        """Return the batch's files; None if they have to wait for the storage, or for the project's code."""
        try:
            return self._join_output_files(batch_id, finisher)
        except FormatFailed as failure:
            # Left to nobody until the lease runs out: before the code has changed there is no use in another try.
            outputs.delete_attempt(batch_id, finisher)
            said = log_words.of_error(failure)
            logger.error("The output files of %s wait for their format to be mended: %s", batch_id, said)
            self._on_error(failure)
            return None
        except BaseException as error:
            Batch.objects.primary().filter(pk=batch_id).leave_finish(finisher)
            if not _is_outage(error):
                raise
            self._on_outage(batch_id, error)
            return None

    def _join_output_files(self, batch_id: UUID, finisher: UUID) -> dict[str, OutputFile]:
        def renew(copying: int) -> None:
            # Nobody renews the lease while a file is copied, so it is as long as the file is large.
            lease = LEASE + timedelta(seconds=copying // COPY_BYTES_PER_SECOND)
            Batch.objects.primary().filter(pk=batch_id).renew_finish(finisher, lease)

        return join.join(Batch.objects.primary().get(pk=batch_id), finisher, renew=renew)

    def _has_output_lines(self, batch_id: UUID) -> bool:
        return next(join.contributions(batch_id), None) is not None

    def _storage_rests(self) -> bool:
        return time.monotonic() < self._storage_rests_until

    def _on_outage(self, batch_id: UUID, error: BaseException) -> None:
        self._storage_rests_until = time.monotonic() + STORAGE_REST_SECONDS
        said = log_words.of_error(error)
        logger.error("The output files of %s wait: the storage failed. %s", batch_id, said)
        self._on_error(error)


def _is_outage(error: BaseException) -> bool:
    """Tell a storage that fails from a database that does, and from the end of the process."""
    return isinstance(error, Exception) and not isinstance(error, DatabaseError | InterfaceError)
