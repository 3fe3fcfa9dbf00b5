"""Run rows with their processor, and turn whatever comes of it into an ending that can be stored."""

from __future__ import annotations

import json
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from django.core.files.base import File

from alya_django.answers import ErrorMessage
from alya_django.conf import settings
from alya_django.db import RowEnding
from alya_django.engine.claim import Chunk
from alya_django.models import Batch, database
from alya_django.processors import QueryResult, Row, RowFailed, RowResult
from alya_django.status import Kind, Status
from alya_django.validation import encode_json

ABORT_ASKED_EVERY_SECONDS = 1.0
MESSAGE_CHARS_MAX = 2_000
ANSWERS: dict[Kind, type[RowResult] | type[QueryResult]] = {
    Kind.BATCH: RowResult,
    Kind.SLOW_QUERY: QueryResult,
}


class Processed(NamedTuple):
    """
    How the processing of a row ended.

    ``error`` is what the processor raised without meaning to fail the row; ``output_files`` what a slow query
    wants stored.
    """

    ending: RowEnding
    error: BaseException | None = None
    output_files: Mapping[str, File[Any] | str] = MappingProxyType({})


def engine_message(msgid: int, errcode: str, text: str) -> ErrorMessage:
    """Return a message of Alya's own; the text goes into ``vals`` in a form that can be stored."""
    text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return ErrorMessage(errcode, vals=(text[:MESSAGE_CHARS_MAX],), msgid=msgid)


def process(chunk: Chunk, init_block: Any, logical_names: set[str]) -> Iterator[Processed]:
    """
    Run the rows of a chunk one after the other, yielding how each ended.

    An exception fails its row alone. ``logical_names`` are the output files that the batch has so far; new ones
    are added to it.
    """
    batch, kind = chunk.batch, chunk.registration.kind
    run = database().guarded(chunk.registration.method)
    context = json.dumps(batch.context) if batch.context else ""
    make_row = partial(
        Row,
        batch_id=batch.pk,
        app=batch.app,
        op=batch.op,
        init_block=init_block,
        is_aborted=_abort_probe(batch),
    )
    root = f"{batch.root_batch_id}:"
    for claimed in chunk.rows:
        try:
            row = make_row(
                line=claimed.line,
                input=json.loads(claimed.input),
                # Each row has a copy of its own: what one does to it is no other's business.
                context=json.loads(context) if context else {},
                attempt=claimed.attempt,
                key=f"{root}{claimed.line}",
            )
            processed = _ended(claimed.id, kind, run(row), logical_names)
        except MemoryError:
            raise
        except (Exception, CancelledError) as error:
            processed = raised(claimed.id, error)
        yield processed


def raised(row_id: int, error: BaseException) -> Processed:
    """Return the failure that an exception makes of a row: meant, or by accident."""
    if isinstance(error, RowFailed):
        try:
            return Processed(RowEnding(row_id, Status.FAILED, None, _messages(error.messages), None))
        except Exception as fault:
            error = fault
    message = engine_message(10, "processing_error", describe(error))
    return Processed(RowEnding(row_id, Status.FAILED, None, _messages((message,)), None), error)


def describe(error: BaseException) -> str:
    """Return an exception in words, also one that has none."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _ended(row_id: int, kind: Kind, returned: Any, logical_names: set[str]) -> Processed:
    """Return the ending that a processor's answer makes; raise for an answer that is none."""
    if not isinstance(returned, RowResult | QueryResult):
        return Processed(RowEnding(row_id, Status.SUCCESS, _result_text(returned), None, None))
    if not isinstance(returned, ANSWERS[kind]):
        raise TypeError(f"A {kind.label} processor returned a {type(returned).__name__}.")
    if returned.status not in (Status.SUCCESS, Status.FAILED):
        raise ValueError(f"A processor returned the status {returned.status!r}, not success or failed.")
    status = Status(returned.status)
    is_empty = returned.result is None and status is Status.FAILED
    result = None if is_empty else _result_text(returned.result)
    messages = _messages(returned.messages)
    if isinstance(returned, QueryResult):
        ending = RowEnding(row_id, status, result, messages, None)
        return Processed(ending, output_files=_checked_files(returned.output_files))
    return Processed(RowEnding(row_id, status, result, messages, _output_lines(returned.output_lines, logical_names)))


def _result_text(result: Any) -> str:
    return "{}" if result is None else encode_json(result, "result")


def _messages(messages: tuple[ErrorMessage, ...]) -> str | None:
    if not messages:
        return None
    return encode_json([message.as_json() for message in messages], "messages")


def _output_lines(output_lines: Mapping[str, str], logical_names: set[str]) -> str | None:
    """Return a row's contributions as JSON text; an empty one is none."""
    kept = {}
    for logical_name, text in output_lines.items():
        _check_logical_name(logical_name)
        if not isinstance(text, str):
            raise TypeError(f"output_lines[{logical_name!r}] is a {type(text).__name__}, not a string.")
        if text:
            kept[logical_name] = text
    if not kept:
        return None
    encoded = encode_json(kept, "output_lines")
    if len(logical_names | kept.keys()) > settings.OUTPUT_FILES_MAX:
        raise ValueError(f"The batch would have more than {settings.OUTPUT_FILES_MAX} output files.")
    logical_names.update(kept)
    return encoded


def _checked_files(output_files: Mapping[str, Any]) -> Mapping[str, Any]:
    for logical_name, file in output_files.items():
        _check_logical_name(logical_name)
        if not isinstance(file, str | File):
            raise TypeError(
                f"output_files[{logical_name!r}] is a {type(file).__name__}, neither a File nor an object's name."
            )
    stored = {name: file if isinstance(file, str) else "" for name, file in output_files.items()}
    encode_json(stored, "output_files")
    return output_files


def _check_logical_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{name!r} is no name of an output file: it must be a string and not empty.")


def _abort_probe(batch: Batch) -> Callable[[], bool]:
    """Return what tells whether the batch was aborted, asking the database at most once a second."""
    asked_at = 0.0
    aborted = False

    def is_aborted() -> bool:
        nonlocal asked_at, aborted
        now = time.monotonic()
        if not aborted and now - asked_at >= ABORT_ASKED_EVERY_SECONDS:
            asked_at = now
            aborted = Batch.objects.primary().filter(pk=batch.pk, status=Status.ABORTED).exists()
        return aborted

    return is_aborted
