from __future__ import annotations

from collections.abc import Callable

import pytest

from alya_django.engine.claim import Claimer
from alya_django.engine.pace import Pace
from alya_django.engine.record import Recorder
from alya_django.models import database
from alya_django.registry import registry


@pytest.fixture
def make_claimer() -> Callable[[int], Claimer]:
    """Make what claims for a worker of a given number, of all that is registered by then."""

    def make(number: int) -> Claimer:
        return Claimer(
            database(),
            number=number,
            name=f"worker-{number}",
            registrations=list(registry),
            is_usable=lambda app: True,
            pace=Pace(),
        )

    return make


@pytest.fixture
def make_recorder() -> Callable[[int], Recorder]:
    """Make what records for a worker of a given number."""
    return lambda number: Recorder(database(), number=number, name=f"worker-{number}")
