from __future__ import annotations

from collections.abc import Callable

import pytest

from alya_django import batches, register_batch_processor
from alya_django.engine.claim import Chunk, Claimer
from tests.processors import echo


@pytest.fixture
def chunk(registry: None, make_claimer: Callable[[int], Claimer]) -> Chunk | None:
    """Rows of a batch in the hands of worker 1; two more are queued."""
    register_batch_processor("app", "op", echo)
    batches.submit("app", "op", range(12))
    return make_claimer(1).take()
