"""``manage.py alya_retry``: submit the failed and aborted rows of a batch again."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from alya_django import batches
from alya_django.management import arguments
from alya_django.management.batch_commands import BatchCommand, as_json, find


class Command(BatchCommand):
    help = "Submits the failed and aborted rows of a batch again, as a child batch, and prints the child's id."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--lines", type=arguments.lines, metavar="3,7,10-20", help="Only these lines.")
        parser.add_argument("--wait", action="store_true", help="Keep the child back until it is released.")

    def act(self, options: dict[str, Any]) -> None:
        child_id = batches.retry(find(options["id"]).id, lines=options["lines"], wait=options["wait"])
        self.tell(str(child_id), as_json(find(str(child_id))))
