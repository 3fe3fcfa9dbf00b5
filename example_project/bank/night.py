"""
Work that takes long, so that the demo site has something in progress and something queued behind it.

It is registered for an app of its own, ``night``: a worker that serves only that keeps it apart from the day's work.
"""

import time
from typing import Any

from alya_django import Row, register_batch_processor, register_slow_query_processor
from example_project.bank import ledger
from example_project.bank.models import Account

SCREENING_SECONDS = 0.5
STEP_SECONDS = 0.1


def screen(row: Row) -> dict[str, Any]:
    """Look for a name in the lists of a slow service, which this one plays."""
    time.sleep(SCREENING_SECONDS)
    return {"name": row.input["name"], "found": False}


@register_slow_query_processor("night", "report")
def report(row: Row) -> dict[str, Any]:
    """Take the seconds that the input says, unless aborted, and tell whether the books balance."""
    until = time.monotonic() + row.input["seconds"]
    while time.monotonic() < until and not row.aborted():
        time.sleep(STEP_SECONDS)
    return {"accounts": Account.objects.count(), "discrepancies": ledger.discrepancies()}


register_batch_processor("bank", "screening", screen)
register_batch_processor("night", "screening", screen)
