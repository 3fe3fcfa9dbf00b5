"""
django-tasks-db: a backend of Django's tasks, on PostgreSQL; a worker does one task at a time.

Measured by the times in its table, from the first start to the last end.

Tried: a kept connection or a pool. Its worker has no other setting that matters while there is work.
"""

from __future__ import annotations

import os

import django

from benchmarks.peers import program

WORKER = ["db_worker", "--batch", "--no-startup-delay", "--verbosity=0"]

os.environ.update(
    DJANGO_SETTINGS_MODULE="benchmarks.peers.django_project",
    TASKS_APP="django_tasks_db",
    TASKS_BACKEND="django_tasks_db.DatabaseBackend",
)
django.setup()


def enqueue(payments: program.Payments) -> None:
    """Make the tables, and fill them in one transaction: it has no bulk."""
    from django.core.management import call_command
    from django.db import transaction

    from benchmarks.peers.django_project import noop

    call_command("migrate", verbosity=0)
    with transaction.atomic():
        for payment in payments:
            noop.enqueue(**payment)


def work() -> program.Worked:
    """Run workers until nothing is left."""
    from django.db.models import Max, Min
    from django_tasks_db.models import DBTaskResult

    program.run_workers("django", *WORKER)
    done = DBTaskResult.objects.successful()
    times = done.aggregate(first=Min("started_at"), last=Max("finished_at"))
    return program.Worked(done.count(), (times["last"] - times["first"]).total_seconds())


if __name__ == "__main__":
    program.main("django-tasks-db Django psycopg", f"{' '.join(WORKER)}, CONN_MAX_AGE=600", enqueue=enqueue, work=work)
