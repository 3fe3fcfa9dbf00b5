"""The page of the workers that are alive."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from alya_django.admin import words
from alya_django.admin.read_only import ReadOnlyAdmin
from alya_django.models import Worker


class WorkerAdmin(ReadOnlyAdmin[Worker]):
    """Workers, oldest first."""

    ordering = ("id",)
    list_per_page = 100
    list_display = ("name", "host", "pid", "version", "served", "speed", "since", "beat")
    fields = ("name", "host", "pid", "version", "served", "speed", "since", "beat")
    readonly_fields = ("served", "speed", "since", "beat")

    @admin.display(description=_("ops"))
    def served(self, worker: Worker) -> str:
        """Name each app and op once, though a worker may serve it for batches and for slow queries."""
        return ", ".join(sorted({f"{app}/{op}" for _kind, app, op in worker.ops}))

    @admin.display(description=_("rows per second"))
    def speed(self, worker: Worker) -> str:
        return words.number(round(worker.rate))

    @admin.display(description=_("started"))
    def since(self, worker: Worker) -> str:
        return words.moment(worker.started)

    @admin.display(description=_("heartbeat"))
    def beat(self, worker: Worker) -> str:
        return words.moment(worker.heartbeat)
