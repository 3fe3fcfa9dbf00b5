"""``manage.py alya_health``: tell by its exit code whether a worker of this host is alive."""

from __future__ import annotations

import socket
from typing import Any

from alya_django.conf import settings
from alya_django.management.batch_commands import OperatorCommand
from alya_django.models import Worker


class Command(OperatorCommand):
    help = "Ends with 0 if a worker of this host was heard of within WORKER_TTL_SECONDS, with 1 otherwise."

    def act(self, options: dict[str, Any]) -> None:
        host = socket.gethostname()
        names = list(
            Worker.objects.primary().filter(host=host).alive().order_by("name").values_list("name", flat=True)
        )
        if not names:
            raise self.ending(f"No worker of {host} was heard of within {settings.WORKER_TTL_SECONDS} s.")
        self.tell(f"Alive: {', '.join(names)}.", {"host": host, "workers": names})
