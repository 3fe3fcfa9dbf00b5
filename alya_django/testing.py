"""Run batches inside tests: in this thread, on this connection, so also inside a ``TestCase``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alya_django.engine.worker import Worker
from alya_django.registry import registry


def drain(*, app: str | None = None, op: str | None = None, raise_errors: bool = True) -> int:
    """
    Claim, process, record and finish until nothing can be claimed now; return how many rows ended.

    Args:
        app: Only batches of this app.
        op: Only batches of this op.
        raise_errors: Raise the first exception of a processor, an initializer or ``mark_done`` once all is done;
            RowFailed is none. False leaves it where the project will see it: in the row's messages.
    """
    with Worker(app=app, op=op) as worker:
        rows = worker.drain()
    if raise_errors and worker.error is not None:
        raise worker.error
    return rows


@contextmanager
def isolated_registry() -> Iterator[None]:
    """Begin with an empty registry, and have the project's own back afterwards; also a decorator."""
    with registry.isolated():
        yield
