"""``manage.py alya_prune``: delete batches that ended long ago, with their rows and files."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from alya_django.management import arguments
from alya_django.management.batch_commands import OperatorCommand
from alya_django.management.terminal import live_text
from alya_django.retention import Pruned, count_prunable, prune


class Command(OperatorCommand):
    help = (
        "Deletes batches and slow queries that ended long ago, with their rows and files. It can be stopped any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--older-than", type=arguments.age, required=True, metavar="90d", help="What ended longer ago than that."
        )
        parser.add_argument("--app", help="Only this app.")
        parser.add_argument("--op", help="Only this op.")
        parser.add_argument("--keep-files", action="store_true", help="Leave output files and received files.")
        parser.add_argument("--dry-run", action="store_true", help="Only tell what would be deleted.")

    def act(self, options: dict[str, Any]) -> None:
        narrowed = {"app": options["app"], "op": options["op"]}
        if options["dry_run"]:
            pruned = count_prunable(options["older_than"], **narrowed)
            if options["keep_files"]:
                pruned.files = 0
        else:
            with live_text(sys.stdout) as show:
                pruned = prune(
                    options["older_than"],
                    **narrowed,
                    keep_files=options["keep_files"],
                    on_progress=lambda so_far: show and show(_text(so_far)),
                )
        what = "Would be deleted" if options["dry_run"] else "Deleted"
        self.tell(f"{what}: {_text(pruned)}.{_waiting(pruned)}", {**asdict(pruned), "dry_run": options["dry_run"]})
        if pruned.kept:
            raise CommandError(
                f"The storage failed; records kept for the next time: {pruned.kept:,}. {pruned.failure}"
            )


def _text(pruned: Pruned) -> str:
    return f"batches {pruned.batches:,}, rows {pruned.rows:,}, files {pruned.files:,}"


def _waiting(pruned: Pruned) -> str:
    return f" As old, but waiting to be released: batches {pruned.waiting:,}." if pruned.waiting else ""
