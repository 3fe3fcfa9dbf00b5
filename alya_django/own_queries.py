"""The slow queries that Alya submits to its own workers, in the app ``alya``: what takes longer than a request may."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from alya_django import batches, lifecycle
from alya_django.exceptions import AlreadyDone, InvalidState, NotFound
from alya_django.models import Batch, Worker, database
from alya_django.processors import QueryResult, Row, RowFailed, SlowQueryProcessor
from alya_django.registry import registry
from alya_django.status import Kind, Status
from alya_django.validation import OWN_APP

ABORT, RETRY = "abort", "retry"
"""The ops, named after what they do to the batch that they are about, their parent."""
NOT_FOUND, WRONG_STATE = "not_found", "wrong_state"
"""The errcodes of what could not be done; the values of the second have the state that the batch is in."""


class AbortBatch(SlowQueryProcessor):
    """Abort a batch; the result has how many rows that were."""

    time_limit = math.inf

    def do_slow_query(self, row: Row) -> QueryResult:
        with _refusals_as_failures():
            summary = batches.abort(row.input["batch"])
        return QueryResult.success({"rows": summary.naborted})


class RetryBatch(SlowQueryProcessor):
    """Retry a batch's failed and aborted rows; the result has the child batch and how many rows that were."""

    time_limit = math.inf

    def do_slow_query(self, row: Row) -> QueryResult:
        with _refusals_as_failures():
            # Where the worker died after it had made the child, the next one finds it.
            child = batches.retry(row.input["batch"], unique_key=f"{OWN_APP}/{RETRY} {row.batch_id}")
        return QueryResult.success({"rows": batches.status(child).nrows, "batch": str(child)})


PROCESSORS: dict[str, type[SlowQueryProcessor]] = {ABORT: AbortBatch, RETRY: RetryBatch}


def register() -> None:
    """Let the workers of this process serve them, as all do that are not narrowed to other apps."""
    for op, processor in PROCESSORS.items():
        registry.register_processor(Kind.SLOW_QUERY, OWN_APP, op, processor, {})


def served() -> set[str]:
    """Return the ops that a live worker answers."""
    return {op for kind, app, op in Worker.objects.alive().ops() if (kind, app) == (Kind.SLOW_QUERY, OWN_APP)}


def ask_to_abort(batch_id: UUID, *, requested_by: str, reason: str) -> UUID:
    """
    Have a worker abort a batch, of which nothing is claimed from now on, and return the id of the slow query.

    Where it was asked for and has not been answered, that is the id of the earlier one.

    Args:
        reason: Why the batch is held until then.

    Raises:
        AlreadyDone: The batch has ended.
    """
    with database().transaction():
        batch = _lock(batch_id)
        if Status(batch.status).is_final:
            raise AlreadyDone(f"The batch {batch_id} has ended already.", summary=batch.summary())
        Batch.objects.primary().filter(pk=batch_id).hold_at_once(reason)
        lifecycle.drop_cached(batch_id)
        return _ask(ABORT, batch, requested_by)


def ask_to_retry(batch_id: UUID, *, requested_by: str) -> UUID:
    """Have a worker retry a batch, and return the id of the slow query, or of one that does so already."""
    with database().transaction():
        return _ask(RETRY, _lock(batch_id), requested_by)


def _lock(batch_id: UUID) -> Batch:
    """Lock a batch that is about to get a slow query into its family, as for a child."""
    batches_of_all = Batch.objects.primary()
    return batches_of_all.lock_parent(batches_of_all.find(batch_id, Kind.BATCH))


def _ask(op: str, batch: Batch, requested_by: str) -> UUID:
    # The lock of the batch is held: nobody else counts at this moment.
    answered = Batch.objects.primary().own_about(batch).finished().filter(op=op).count()
    return lifecycle.store_query(
        OWN_APP,
        op,
        {"batch": str(batch.pk)},
        requested_by=requested_by,
        unique_key=f"{batch.pk} {answered + 1}",
        about=batch,
    )


@contextmanager
def _refusals_as_failures() -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise RowFailed(NOT_FOUND) from None
    except InvalidState as refusal:
        raise RowFailed(WRONG_STATE, vals=(refusal.status.value,)) from None
