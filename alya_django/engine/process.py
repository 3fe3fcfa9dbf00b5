"""Run rows with their processor, and turn whatever comes of it into an ending that can be stored."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from django.core.files.base import File

from alya_django.answers import ErrorMessage
from alya_django.conf import settings
from alya_django.db import RowEnding
from alya_django.engine.claim import Chunk, ClaimedRow
from alya_django.engine.watch import NO_WATCH, NoWatch
from alya_django.faults import chain, describe, let_go, spare_ctrl_c
from alya_django.models import Batch, database
from alya_django.output_formats import OutputFormat, format_of
from alya_django.processors import QueryResult, RetryLater, Row, RowFailed, RowResult, check_delay
from alya_django.status import Kind, Status
from alya_django.validation import encode_json

ABORT_ASKED_EVERY_SECONDS = 1.0
RETRY_JITTER = 0.2
RETRY_DOUBLINGS_MAX = 20
RETRY_SECONDS_MAX = 3_600.0
MESSAGE_CHARS_MAX = 2_000
# Nothing comes before or behind the JSON that a database returns: what else json.loads looks for is not there.
decode = json.JSONDecoder().raw_decode
ANSWER_OF: dict[Kind, type[RowResult] | type[QueryResult]] = {
    Kind.BATCH: RowResult,
    Kind.SLOW_QUERY: QueryResult,
}
ANSWERS = tuple(ANSWER_OF.values())


class Processed(NamedTuple):
    """
    How the processing of a row ended.

    ``error`` is what the processor raised without meaning to fail the row; ``output_files`` what a slow query
    wants stored. With a ``delay`` the row has not ended: it is processed again after so many seconds, because of
    ``put_off_by``.
    """

    ending: RowEnding
    error: BaseException | None = None
    output_files: Mapping[str, File[Any] | str] = MappingProxyType({})
    delay: float | None = None
    put_off_by: BaseException | None = None

    @property
    def is_success(self) -> bool:
        return self.ending.status is Status.SUCCESS


def engine_message(msgid: int, errcode: str, text: str) -> ErrorMessage:
    """Return a message of Alya's own; the text goes into ``vals`` in a form that can be stored."""
    text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return ErrorMessage(errcode, vals=(text[:MESSAGE_CHARS_MAX],), msgid=msgid)


class Processing:
    """
    The processing of one chunk: rows are made of what was claimed, and endings of what becomes of them.

    An exception, whichever it is, fails its row alone, or puts it off. ``logical_names`` are the output files that
    the batch has so far; new ones are added to it. Several threads may run rows of one chunk, each in a slot of its
    own.
    """

    def __init__(self, chunk: Chunk, logical_names: set[str], watch: NoWatch = NO_WATCH) -> None:
        batch = chunk.batch
        self.chunk = chunk
        self._kind = chunk.registration.kind
        self._options = chunk.registration.options
        self._limit = self._options.seconds
        self._logical_names = logical_names
        self._watch = watch
        self._context = json.dumps(batch.context) if batch.context else ""
        self._root = f"{batch.root_batch_id}:"
        self._make_row = partial(Row, batch_id=batch.pk, app=batch.app, op=batch.op, is_aborted=_abort_probe(batch))
        # Rows put off together come back together: one chunk again.
        self._jitter = random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)
        self._has_faults = False

    def run(self, claimed: ClaimedRow, call: Callable[[Row], Any], init_block: Any, slot: int = 0) -> Processed:
        """Run one row by the call that processes it."""
        try:
            return self._ended(claimed, call(self._begun(claimed, init_block, slot)))
        except BaseException as error:
            return self.faulty(claimed, error)
        finally:
            self._end(slot)

    async def arun(
        self, claimed: ClaimedRow, call: Callable[[Row], Awaitable[Any]], init_block: Any, slot: int
    ) -> Processed:
        """Run one row by a coroutine."""
        try:
            return self._ended(claimed, await call(self._begun(claimed, init_block, slot)))
        except BaseException as error:
            return self.faulty(claimed, error)
        finally:
            self._end(slot)

    def faulty(self, claimed: ClaimedRow, error: BaseException) -> Processed:
        """Return what an exception makes of a row: a failure, or another attempt later."""
        spare_ctrl_c(error)
        self._let_go(error)
        try:
            if self._puts_off(claimed, error):
                ending = RowEnding(claimed.id, Status.QUEUED, None, None, None)
                return Processed(ending, delay=self._delay(claimed, error), put_off_by=error)
        except Exception as fault:
            # A class of the project's that begins without what the class above it has.
            error = fault
        return raised(claimed.id, error)

    def _begun(self, claimed: ClaimedRow, init_block: Any, slot: int) -> Row:
        """Return the row to process, and show that it has begun if it may not take as long as it likes."""
        row = self._make_row(
            line=claimed.line,
            input=decode(claimed.input)[0],
            # Each row has a copy of its own: what one does to it is no other's business.
            context=decode(self._context)[0] if self._context else {},
            init_block=init_block,
            attempt=claimed.attempt,
            key=f"{self._root}{claimed.line}",
        )
        if self._limit is not None:
            self._watch.begin(slot, claimed.id, self._limit)
        return row

    def _end(self, slot: int) -> None:
        if self._limit is not None:
            self._watch.end(slot)

    def _ended(self, claimed: ClaimedRow, returned: Any) -> Processed:
        return _ended(claimed.id, self._kind, returned, self._logical_names, self._options.output_formats)

    def _let_go(self, error: BaseException) -> None:
        """
        Keep no row's memory: only what the first fault had in hand is kept, for whoever looks into it.

        Where memory has run out the next row would not have any.
        """
        if self._has_faults or any(isinstance(link, MemoryError) for link in chain(error)):
            let_go(error)
        self._has_faults = True

    def _puts_off(self, claimed: ClaimedRow, error: BaseException) -> bool:
        asks = isinstance(error, (RetryLater, *self._options.retry_on))
        return asks and claimed.strikes + 1 < self._options.attempts

    def _delay(self, claimed: ClaimedRow, error: BaseException) -> float:
        if isinstance(error, RetryLater) and error.delay is not None:
            return check_delay(error.delay)
        seconds: float = settings.RETRY_SECONDS * 2.0 ** min(claimed.strikes, RETRY_DOUBLINGS_MAX)
        return min(seconds * self._jitter, RETRY_SECONDS_MAX)


def process(
    processing: Processing, init_block: Any, goes_on: Callable[[], bool] = lambda: True
) -> Iterator[Processed]:
    """Run the rows of a chunk one after the other, as long as it goes on, yielding how each ended."""
    call = database().guarded(processing.chunk.registration.method)
    for claimed in processing.chunk.rows:
        if not goes_on():
            break
        yield processing.run(claimed, call, init_block)


def to_record(done: Iterable[Processed]) -> tuple[list[RowEnding], dict[float, list[int]]]:
    """Return the rows that have ended, and those put off, by the seconds that they are to wait."""
    endings: list[RowEnding] = []
    put_off: dict[float, list[int]] = {}
    for processed in done:
        if processed.delay is None:
            endings.append(processed.ending)
        else:
            put_off.setdefault(processed.delay, []).append(processed.ending.row_id)
    return endings, put_off


def raised(row_id: int, error: BaseException) -> Processed:
    """Return the failure that an exception makes of a row: meant, or by accident."""
    if isinstance(error, RowFailed):
        try:
            return Processed(RowEnding(row_id, Status.FAILED, None, _messages(error.messages), None))
        except BaseException as fault:
            spare_ctrl_c(fault)
            error = fault
    message = engine_message(10, "processing_error", describe(error))
    return Processed(RowEnding(row_id, Status.FAILED, None, _messages((message,)), None), error)


def _ended(
    row_id: int, kind: Kind, returned: Any, logical_names: set[str], formats: Mapping[str, OutputFormat]
) -> Processed:
    """Return the ending that a processor's answer makes; raise for an answer that is none."""
    if not isinstance(returned, ANSWERS):
        _check_result(kind, returned)
        return Processed(RowEnding(row_id, Status.SUCCESS, _result_text(returned), None, None))
    if not isinstance(returned, ANSWER_OF[kind]):
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
    output_lines = _output_lines(returned.output_lines, logical_names, formats)
    return Processed(RowEnding(row_id, status, result, messages, output_lines))


def _check_result(kind: Kind, result: Any) -> None:
    """Refuse a status that is meant as such: as a result it would make a success even of FAILED."""
    first = result[0] if isinstance(result, tuple) and result else result
    if isinstance(first, Status):
        wanted = ANSWER_OF[kind].__name__
        what = f"Status.{first.name}" if first is result else f"a tuple that begins with Status.{first.name}"
        raise TypeError(
            f"A {kind.label} processor returned {what}. "
            f"Return {wanted}.success(...) or {wanted}.failed(...), or raise RowFailed; plain JSON is a success."
        )


def _result_text(result: Any) -> str:
    return "{}" if result is None else encode_json(result, "result")


def _messages(messages: tuple[ErrorMessage, ...]) -> str | None:
    if not messages:
        return None
    return encode_json([message.as_json() for message in messages], "messages")


def _output_lines(
    output_lines: Mapping[str, str], logical_names: set[str], formats: Mapping[str, OutputFormat]
) -> str | None:
    """Return a row's contributions as JSON text; an empty one is none, and one without its amounts no contribution."""
    kept = {}
    for logical_name, text in output_lines.items():
        _check_logical_name(logical_name)
        if not isinstance(text, str):
            raise TypeError(f"output_lines[{logical_name!r}] is a {type(text).__name__}, not a string.")
        if text:
            kept[logical_name] = text
            format_of(formats, logical_name).amounts(text)
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
