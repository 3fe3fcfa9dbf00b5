"""Batches that the verbs and a worker have brought where a test wants them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from alya_django import RowFailed, Status, batches, register_batch_processor
from alya_django.testing import drain
from tests.processors import echo, fail_odd


def put_into(status: Status) -> UUID:
    """Return a batch of two rows that the verbs alone have brought into a final state, or before its start."""
    if status is Status.WAIT:
        return batches.submit("bank", "echo", [2, 4], wait=True)
    if status is Status.QUEUED:
        return batches.submit("bank", "echo", [2, 4])
    if status is Status.ABORTED:
        batch_id = batches.submit("bank", "echo", [2, 4])
        batches.abort(batch_id)
        return batch_id
    register_batch_processor("bank", f"to_{status.value}", echo if status is Status.SUCCESS else fail_odd)
    batch_id = batches.submit("bank", f"to_{status.value}", [2, 4])
    drain(op=f"to_{status.value}")
    return batch_id


def while_running(act) -> tuple[UUID, list[Any]]:
    """Do something with a batch of four rows when two of them have ended; return its id and what was answered."""
    answers = []

    def probe(row):
        if row.line == 3:
            answers.append(act(row.batch_id))
        if row.line == 1:
            raise RowFailed("odd")

    register_batch_processor("bank", "probe", probe, chunk_rows=1)
    batch_id = batches.submit("bank", "probe", [1, 2, 3, 4])
    drain(op="probe")
    return batch_id, answers
