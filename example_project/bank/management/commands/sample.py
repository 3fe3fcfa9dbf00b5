"""``manage.py sample``: a batch and a slow query in every state, to look at."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand

from example_project.bank.samples import ensure_samples


class Command(BaseCommand):
    help = (
        "Makes the accounts of the bank, and a batch and a slow query for every state. Again, it adds only what has "
        "left its state. Workers bring them there: one for --app bank, one for --app night, which has an hour to do."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        kinds = Counter(sample.kind.label for sample in ensure_samples().values())
        self.stdout.write("Samples: " + ", ".join(f"{count} of kind {kind}" for kind, count in kinds.items()) + ".")
