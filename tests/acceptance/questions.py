"""What tests ask about a batch that started processes work off."""

from __future__ import annotations

from uuid import UUID

from django.db.models.functions import Now

from alya_django import Status, batches
from alya_django.models import Batch, BatchRow


def is_begun(batch_id: UUID) -> bool:
    """Tell whether a worker has a row of it in hand."""
    return BatchRow.objects.filter(batch=batch_id, status=Status.IN_PROGRESS).exists()


def is_done(batch_id: UUID) -> bool:
    """Tell whether it has ended."""
    return not batches.status(batch_id).try_later


def is_left(batch_id: UUID) -> bool:
    """Tell whether an attempt to finish it was given up."""
    return Batch.objects.filter(pk=batch_id, finisher__isnull=False, finisher_until__lte=Now()).exists()
