"""Run batches inside tests: in this thread, on this connection, so also inside a ``TestCase``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings as django_settings
from django.db.models.functions import Now
from django.test import override_settings
from django.utils import timezone

from alya_django import lifecycle
from alya_django.answers import RowOutcome
from alya_django.checkers import checkers
from alya_django.conf import settings
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

__all__ = ["drain", "isolated_registry", "isolated_storage", "process_row"]


def drain(
    *, app: str | None = None, op: str | None = None, until_retried: bool = False, raise_errors: bool = True
) -> int:
    """
    Claim, process, record and finish until nothing can be claimed now; return how many rows ended.

    A row that is put off, by RetryLater or an exception of ``retry_on``, has not ended: it waits, and no exception is
    raised for it. A ``drain`` after its time has come, or with ``until_retried``, processes it again.

    Args:
        app: Only batches of this app.
        op: Only batches of this op.
        until_retried: Process rows that were put off again at once, however long they are to wait, until they have
            ended: with success, with a failure, or because ``max_attempts`` are used up.
        raise_errors: Raise the first exception of a processor, an initializer or ``mark_done`` once all is done;
            RowFailed is none. False leaves it where the project will see it: in the row's messages.
    """
    scope = Scope.of(apps=_given(app), ops=_given(op))
    with Worker(scope=scope) as worker:
        rows = worker.drain()
        hastened: dict[int, int] = {}
        # What neither ends nor is put off once more waits for something else, such as its initializer.
        while until_retried and (waiting := _hasten(scope)) != hastened:
            hastened = waiting
            rows += worker.drain()
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

    Nothing is stored: unless the processor itself asks the database, none is needed. It is the row's first attempt:
    one that is put off is returned as QUEUED, without a message, unless the op has ``max_attempts=1``.

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


@contextmanager
def isolated_storage() -> Iterator[Path]:
    """
    Let Alya's files go to an empty directory, whose path it yields, and delete them afterwards; also a decorator.

    The alias that STORAGE names stands for that directory meanwhile, for the project too.
    """
    with TemporaryDirectory(prefix="alya-tests-") as directory:
        storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": directory}}
        with override_settings(STORAGES={**django_settings.STORAGES, settings.STORAGE: storage}):
            yield Path(directory)


def _hasten(scope: Scope) -> dict[int, int]:
    """Let the rows that were put off wait no longer, and return how often each was."""
    keys = [entry.key for entry in scope.registrations()]
    waiting = dict(BatchRow.objects.primary().of(keys).requeued().were_put_off().values_list("pk", "retries"))
    # The clock of SQLite is coarse: what is due just now may not be seen to be.
    BatchRow.objects.primary().filter(pk__in=waiting).update(retry_at=Now() - timedelta(seconds=1))
    return waiting


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
