"""``manage.py alya_release``: let a waiting or held batch go."""

from __future__ import annotations

from typing import Any

from alya_django import batches
from alya_django.management.batch_commands import BatchCommand, as_json, find


class Command(BatchCommand):
    help = "Lets a waiting or held batch go."

    def act(self, options: dict[str, Any]) -> None:
        batch = find(options["id"])
        nrows = batches.release(batch.id)
        self.tell(f"{batch.id}: released, with {nrows:,} rows.", as_json(find(str(batch.id))))
