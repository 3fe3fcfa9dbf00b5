"""``manage.py alya_abort``: stop a batch or a slow query for good."""

from __future__ import annotations

from typing import Any

from alya_django import batches, slow_queries
from alya_django.management.batch_commands import BatchCommand, as_json, find
from alya_django.status import Kind


class Command(BatchCommand):
    help = "Stops a batch or a slow query for good. Rows that have ended stay as they are."

    def act(self, options: dict[str, Any]) -> None:
        batch = find(options["id"])
        verbs = batches if batch.kind == Kind.BATCH else slow_queries
        summary = verbs.abort(batch.id)
        self.tell(
            f"{batch.id}: aborted, with {summary.naborted:,} rows that had not ended.", as_json(find(str(batch.id)))
        )
