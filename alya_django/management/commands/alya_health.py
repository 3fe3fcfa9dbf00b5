"""``manage.py alya_health``: tell by its exit code whether a worker of this host is alive."""

from __future__ import annotations

import socket
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from alya_django.conf import settings
from alya_django.models import Worker


class Command(BaseCommand):
    help = "Ends with 0 if a worker of this host was heard of within WORKER_TTL_SECONDS, with 1 otherwise."
    # A probe is to cost little: whether the project is sound was asked when the worker began.
    requires_system_checks: list[str] = []  # noqa: RUF012 (Django's own type)

    def handle(self, *args: Any, **options: Any) -> None:
        host = socket.gethostname()
        names = list(
            Worker.objects.primary().filter(host=host).alive().order_by("name").values_list("name", flat=True)
        )
        if not names:
            raise CommandError(
                f"No worker of {host} was heard of within {settings.WORKER_TTL_SECONDS} s.", returncode=1
            )
        self.stdout.write(f"Alive: {', '.join(names)}.")
