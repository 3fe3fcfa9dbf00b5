"""
django-ox: a backend of Django's tasks, on PostgreSQL, with a statement to take and another to end a task.

Measured by the times in its table, from the first start to the last end.

Tried: 1, 2 and 4 threads in each of the processes; a kept connection or a pool.
"""

from __future__ import annotations

import os

import django

from benchmarks.peers import program

WORKER = ["ox_worker", "--batch", "--concurrency=2", "--verbosity=0"]

os.environ.update(
    DJANGO_SETTINGS_MODULE="benchmarks.peers.django_project",
    TASKS_APP="django_ox",
    TASKS_BACKEND="django_ox.backend.OxBackend",
)
django.setup()


def enqueue(payments: program.Payments) -> None:
    """Make the tables, and fill them in one transaction, many rows a statement."""
    from django.core.management import call_command
    from django_ox.bulk import enqueue_many

    from benchmarks.peers.django_project import noop

    call_command("migrate", verbosity=0)
    enqueue_many(noop, [((), payment) for payment in payments])


def work() -> program.Worked:
    """Run workers until nothing is left."""
    from django.db.models import Max, Min
    from django_ox.models import OxTask

    program.run_workers("django", *WORKER)
    done = OxTask.objects.filter(status="SUCCESSFUL")
    times = done.aggregate(first=Min("started_at"), last=Max("finished_at"))
    return program.Worked(done.count(), (times["last"] - times["first"]).total_seconds())


if __name__ == "__main__":
    program.main("django-ox Django psycopg", f"{' '.join(WORKER)}, CONN_MAX_AGE=600", enqueue=enqueue, work=work)
