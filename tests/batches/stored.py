"""What is in the tables, before and after a verb."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from alya_django import InvalidInput, batches
from alya_django.models import Batch, BatchRow

BLOCK_ROWS = 5_000


def stored() -> tuple[list[Any], list[Any]]:
    """Return all that is stored, to be compared with what is stored later."""
    return list(Batch.objects.order_by("id").values()), list(BatchRow.objects.order_by("id").values())


@contextmanager
def refusing(error_type: type[Exception] = InvalidInput):
    """Expect an error that changes nothing, inside a transaction of the caller that can go on."""
    before = stored()
    with transaction.atomic():
        with pytest.raises(error_type) as caught:
            yield caught
        assert stored() == before


def lines(batch_id: UUID) -> list[int]:
    return [row.line for row in batches.iter_rows(batch_id)]


def inputs(batch_id: UUID) -> list[Any]:
    return list(BatchRow.objects.filter(batch=batch_id).order_by("line").values_list("input", flat=True))
