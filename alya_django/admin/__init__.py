"""The admin's pages of batches, rows, files and workers: they read the models and call the verbs, never the engine."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model

from alya_django.admin.batches import BatchAdmin
from alya_django.admin.files import BatchFileAdmin
from alya_django.admin.rows import BatchRowAdmin
from alya_django.admin.workers import WorkerAdmin
from alya_django.models import Batch, BatchFile, BatchRow, Worker

PAGES: dict[type[Model], type[admin.ModelAdmin[Any]]] = {
    Batch: BatchAdmin,
    BatchRow: BatchRowAdmin,
    BatchFile: BatchFileAdmin,
    Worker: WorkerAdmin,
}

__all__ = ["BatchAdmin", "BatchFileAdmin", "BatchRowAdmin", "WorkerAdmin", "register"]


def register(site: admin.AdminSite) -> None:
    """Show Alya's pages on a project's own site; those that the site has already stay as they are."""
    for model, model_admin in PAGES.items():
        if not site.is_registered(model):
            site.register(model, model_admin)


register(admin.site)
