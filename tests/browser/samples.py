"""What the browser is shown: batches whose counters say whatever a page should look like."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from alya_django import Status, __version__, batches, own_queries, register_batch_processor
from alya_django.models import Batch, BatchErrors, BatchProgress, Worker
from alya_django.testing import drain
from tests.processors import fail_odd

LONG = "settlement-of-a-bank-with-a-very-long-name-that-nobody-would-type-2026-11-23-final-final-2.csv"


def add(nrows: int, ended: int, nfailed: int = 0, **values: Any) -> UUID:
    """Add a batch that says to have so many rows, by its counters."""
    now = timezone.now()
    batch_id = batches.submit(
        "bank",
        "transfer",
        [{}],
        input_file=values.pop("input_file", "a.csv"),
        requested_by=values.pop("requested_by", "asha"),
    )
    values = {"status": Status.IN_PROGRESS, "started_at": now - timedelta(seconds=100), **values}
    Batch.objects.filter(pk=batch_id).update(nrows=nrows, requested_at=now - timedelta(seconds=103), **values)
    BatchProgress.objects.create(batch_id=batch_id, slot=0, nsuccess=ended - nfailed, nfailed=nfailed)
    return batch_id


def add_worker(name: str) -> Worker:
    """Add a live worker that serves the bank, and what Alya asks of its own workers."""
    host, pid = name.rsplit("-", 2)[:2]
    ops = [["B", "bank", "transfer"], ["Q", "alya", "abort"], ["Q", "alya", "retry"]]
    return Worker.objects.create(name=name, host=host, pid=int(pid), version=__version__, ops=ops, rate=3_000)


def add_many() -> dict[str, UUID]:
    """Add batches in every state, of every size."""
    register_batch_processor("bank", "transfer", fail_odd)
    failed = batches.submit("bank", "transfer", [{}] * 10, input_file="november.csv", requested_by="asha")
    drain()
    aborted = batches.submit("bank", "transfer", [{}])
    batches.abort(aborted)
    add_worker("host-a-4711-5e0c91")
    running = add(10_000_000, 6_120_440, 1_538, input_file=LONG)
    BatchErrors.objects.create(batch_id=running, counts={"account_closed": 902, "limit": 411, "": 225})
    held = add(1_000_000, 5_001, 5_001, held_at=timezone.now(), hold_reason="5,001 rows failed, 5,000 may.")
    stalled = add(1_000, 0)
    BatchProgress.objects.filter(batch=stalled).update(moved_at=timezone.now() - timedelta(hours=1))
    waiting = batches.submit("bank", "transfer", [{}] * 3, wait=True)
    asked = add(100_000, 9_000, 12)
    own_queries.ask_to_abort(asked, requested_by="asha", reason="asha has asked to abort it (wrong file).")
    return {
        "asked": asked,
        "failed": failed,
        "aborted": aborted,
        "running": running,
        "held": held,
        "stalled": stalled,
        "waiting": waiting,
    }
