"""Run batches inside tests: in this thread, on this connection, so also inside a ``TestCase``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from django.utils import timezone

from alya_django import lifecycle
from alya_django.answers import RowOutcome
from alya_django.checkers import checkers
from alya_django.db import RowEnding
from alya_django.engine.claim import Chunk, ClaimedRow
from alya_django.engine.init_blocks import InitBlocks, InitFailed
from alya_django.engine.process import Processing, process
from alya_django.engine.scope import Scope
from alya_django.engine.worker import Worker
from alya_django.exceptions import NotFound
from alya_django.models import BatchRow
from alya_django.registry import Registration, registry
from alya_django.status import Kind, Status
from alya_django.validation import JSON, encode_json, fold_name

__all__ = ["drain", "isolated_registry", "process_row"]


def drain(*, app: str | None = None, op: str | None = None, raise_errors: bool = True) -> int:
    """
    Claim, process, record and finish until nothing can be claimed now; return how many rows ended.

    Args:
        app: Only batches of this app.
        op: Only batches of this op.
        raise_errors: Raise the first exception of a processor, an initializer or ``mark_done`` once all is done;
            RowFailed is none. False leaves it where the project will see it: in the row's messages.
    """
    scope = Scope.of(apps=_given(app), ops=_given(op))
    with Worker(scope=scope) as worker:
        rows = worker.drain()
    if raise_errors and worker.error is not None:
        raise worker.error
    return rows


def process_row(
    app: str,
    op: str,
    input: JSON,
    *,
    line: int = 1,
    context: dict[str, JSON] | None = None,
    raise_errors: bool = True,
) -> RowOutcome:
    """
    Run one row through the registered processor, with an init block of its own, and return what would be stored.

    Nothing is stored: unless the processor itself asks the database, none is needed.

    Args:
        line: 0 asks the slow-query processor of the app and op, another number the batch processor.
        raise_errors: Raise an exception of the processor or the initializer; RowFailed is none. False returns the
            failure that it makes of the row.

    Raises:
        NotFound: No such processor is registered.
        InvalidInput: A value that JSON cannot hold.
    """
    registration = _find(Kind.BATCH if line else Kind.SLOW_QUERY, app, op)
    chunk = _chunk_of_one(registration, input, line, context)
    blocks = InitBlocks()
    try:
        (processed,) = process(Processing(chunk, set()), blocks.get(registration.app))
    except InitFailed as failure:
        raise failure.cause from None
    finally:
        blocks.close()
    if raise_errors and processed.error is not None:
        raise processed.error
    return _outcome(line, processed.ending)


@contextmanager
def isolated_registry() -> Iterator[None]:
    """Begin with empty registries, and have the project's own back afterwards; also a decorator."""
    with registry.isolated(), checkers.isolated():
        yield


def _given(name: str | None) -> list[str]:
    return [] if name is None else [name]


def _find(kind: Kind, app: str, op: str) -> Registration:
    registration = registry.find(kind, fold_name(app, "app"), fold_name(op, "op"))
    if registration is None:
        raise NotFound(f"There is no {kind.label} processor for app {app!r} and op {op!r}.")
    return registration


def _chunk_of_one(registration: Registration, input: JSON, line: int, context: dict[str, JSON] | None) -> Chunk:
    """Return a chunk of one row, as a claim would, of a batch that is not stored."""
    batch = lifecycle.new_batch(
        registration.kind,
        registration.app,
        registration.op,
        context=context,
        status=Status.IN_PROGRESS,
        requested_by="",
        unique_key=None,
    )
    text = "{}" if input is None else encode_json(input, "input", line=line)
    return Chunk(0, batch, registration, [ClaimedRow(0, line, text, 1, 0)])


def _outcome(line: int, ending: RowEnding) -> RowOutcome:
    """Return the outcome that a row would have once its ending were stored."""
    result, messages, output_lines = (None if text is None else json.loads(text) for text in ending[2:])
    now = timezone.now()
    return BatchRow(
        line=line,
        status=ending.status,
        result=result,
        messages=messages,
        output_lines=output_lines,
        attempts=1,
        requested_at=now,
        claimed_at=now,
        done_at=now,
    ).outcome()
