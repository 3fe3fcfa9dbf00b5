from __future__ import annotations

import datetime
import decimal
import itertools
import math
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.core.files.storage import FileSystemStorage
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from alya_django import (
    AlreadyDone,
    BatchInput,
    BatchProcessor,
    BatchResult,
    ErrorMessage,
    InvalidInput,
    InvalidState,
    NotFound,
    RowFailed,
    RowResult,
    Status,
    Summary,
    WrongType,
    batches,
    register_batch_processor,
    slow_queries,
)
from alya_django.models import Batch, BatchRow
from alya_django.status import Kind
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import Recording, broken, echo, fail_odd, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

FIRST_BLOCK_ROWS, BLOCK_ROWS = 500, 5_000
NAN, INFINITY = math.nan, math.inf
UNSTORABLE = {
    "NaN": ({"delay": NAN}, "input.delay: NaN cannot be stored as JSON."),
    "infinity": ([INFINITY], "input[0]: Infinity cannot be stored as JSON."),
    "minus infinity": (-INFINITY, "input: Infinity cannot be stored as JSON."),
    "NUL": ({"name": "a\0b"}, "input.name: a NUL character cannot be stored as JSON."),
    "NUL in a key": ({"a\0b": 1}, "input: a NUL character in a key cannot be stored as JSON."),
    "surrogate": ({"name": "\ud800"}, "input.name: a lone surrogate cannot be stored as JSON."),
    "surrogate in a key": ({"\ud800": 1}, "input: a lone surrogate in a key cannot be stored as JSON."),
    "Decimal": (
        {"amount": decimal.Decimal("1.10")},
        "input.amount: a Decimal (give amounts as strings) cannot be stored as JSON.",
    ),
    "bytes": (b"raw", "input: a value of type bytes cannot be stored as JSON."),
    "set": ({"tags": {1}}, "input.tags: a value of type set cannot be stored as JSON."),
    "datetime": ([datetime.datetime(2013, 1, 1)], "input[0]: a value of type datetime cannot be stored as JSON."),
    "key": ({(1, 2): 3}, "input: the key (1, 2) cannot be stored as JSON."),
}
BAD_NAMES = ["", "a b", ".a", "a/b", "flüge", "a" * 256, None, 7]


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()


class FullStorage(FileSystemStorage):
    """A storage that saves nothing."""

    def save(self, *arguments, **keywords):
        raise OSError("No space left on device")


class AsyncRows:
    """Rows that can be read by an event loop alone."""

    def __aiter__(self):
        return self


def a_value(name: str) -> Any:
    """Return a value that is hard on an encoder."""
    if name == "circular":
        value: list[Any] = []
        value.append(value)
        return value
    if name == "deep":
        return nested(100_000)
    return 10**5000


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in itertools.repeat(None, depth):
        value = [value]
    return value


def deepest(act) -> Any:
    """Do something with the most deeply nested value that is not refused."""
    for depth in range(1_100, 0, -1):
        try:
            return act(nested(depth))
        except InvalidInput:
            continue
    raise AssertionError("No depth is accepted.")


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


def put_into(status: Status) -> UUID:
    """Return a batch of two rows that the verbs alone have brought into a final state, or before its start."""
    if status is Status.WAIT:
        return batches.submit("bank", "echo", [2, 4], wait=True)
    if status is Status.QUEUED:
        return batches.submit("bank", "echo", [2, 4])
    if status is Status.ABORTED:
        batch_id = batches.submit("bank", "echo", [2, 4])
        batches.abort(batch_id)
        return batch_id
    register_batch_processor("bank", f"to_{status.value}", echo if status is Status.SUCCESS else fail_odd)
    batch_id = batches.submit("bank", f"to_{status.value}", [2, 4])
    drain(op=f"to_{status.value}")
    return batch_id


def while_running(act) -> tuple[UUID, list[Any]]:
    """Do something with a batch of four rows when two of them have ended; return its id and what was answered."""
    answers = []

    def probe(row):
        if row.line == 3:
            answers.append(act(row.batch_id))
        if row.line == 1:
            raise RowFailed("odd")

    register_batch_processor("bank", "probe", probe, chunk_rows=1)
    batch_id = batches.submit("bank", "probe", [1, 2, 3, 4])
    drain(op="probe")
    return batch_id, answers


VERBS = {
    "append": lambda batch_id: batches.append(batch_id, [1]),
    "release": batches.release,
    "status": batches.status,
    "result": batches.result,
    "iter_rows": batches.iter_rows,
    "line": lambda batch_id: batches.line(batch_id, 1),
    "open_output": lambda batch_id: batches.open_output(batch_id, "a.csv"),
    "abort": batches.abort,
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


class IdTests:
    @pytest.mark.rule("API-1")
    @every_verb
    @pytest.mark.parametrize("batch_id", ["", "17", "not-a-uuid", 17, None, b"x", ["x"]], ids=repr)
    def test_every_verb_refuses_a_malformed_id(self, verb, batch_id):
        """A malformed id is invalid input, whatever the verb."""
        with refusing() as caught:
            verb(batch_id)
        assert str(caught.value) == f"id: {batch_id!r} is no UUID."
        assert caught.value.field == "id"

    @pytest.mark.rule("API-2")
    @every_verb
    def test_every_verb_says_that_there_is_no_such_batch(self, verb):
        """An unknown id is not found, whatever the verb."""
        batch_id = uuid4()
        with refusing(NotFound) as caught:
            verb(batch_id)
        assert str(caught.value) == f"There is no batch {batch_id}."
        assert isinstance(caught.value, LookupError)

    @pytest.mark.rule("API-3")
    @every_verb
    def test_every_verb_refuses_a_slow_query(self, verb):
        """The id of a slow query is of the wrong type, whatever the verb."""
        query_id = slow_queries.submit("bank", "report", {})
        with refusing(WrongType) as caught:
            verb(query_id)
        assert str(caught.value) == f"{query_id} is a slow query."

    @pytest.mark.rule("API-3")
    @every_verb
    def test_every_verb_refuses_a_slow_query_that_is_cached(self, verb, registry, django_capture_on_commit_callbacks):
        """The cache does not hide the type."""
        query_id = slow_queries.submit("bank", "report", {})
        with django_capture_on_commit_callbacks(execute=True):
            slow_queries.abort(query_id)
        with refusing(WrongType):
            verb(query_id)

    @every_verb
    def test_every_verb_takes_an_id_as_text(self, verb, registry):
        """An id that was printed and read again works."""
        register_batch_processor("bank", "write", write_lines)
        running = batches.submit("bank", "other", [1], wait=True)
        done = batches.submit("bank", "write", [{"a.csv": "x"}])
        drain()
        batch_id = done if verb in (VERBS["line"], VERBS["open_output"]) else running
        answer = verb(str(batch_id).upper())
        assert answer is not None
        if verb is VERBS["open_output"]:
            answer.close()


class SubmitTests:
    @pytest.mark.rule("SUB-1")
    def test_stores_a_batch_and_its_rows(self):
        """A batch and a row for each input are stored, nothing of them done."""
        batch_id = batches.submit(
            "bank", "transfer", [{"a": 1}, "x", None], context={"day": 1}, input_file="in.csv", requested_by="eve"
        )
        batch = Batch.objects.get(pk=batch_id)
        assert isinstance(batch_id, UUID)
        assert (batch.kind, batch.app, batch.op, batch.nrows) == (Kind.BATCH, "bank", "transfer", 3)
        assert (batch.context, batch.input_file, batch.requested_by) == ({"day": 1}, "in.csv", "eve")
        assert (batch.nsuccess, batch.nfailed, batch.naborted, batch.done_at, batch.started_at) == (None,) * 5
        assert inputs(batch_id) == [{"a": 1}, "x", {}]
        assert {row.status for row in batches.iter_rows(batch_id)} == {Status.QUEUED}
        check_invariants()

    @pytest.mark.rule("SUB-1")
    def test_returns_another_id_each_time(self):
        """The same rows submitted again are another batch."""
        assert len({batches.submit("bank", "echo", [1]) for _ in range(3)}) == 3

    @pytest.mark.rule("SUB-1")
    def test_numbers_rows_from_1(self):
        """Rows without lines are numbered in their order."""
        batch_id = batches.submit("bank", "echo", iter("abc"))
        assert lines(batch_id) == [1, 2, 3]
        assert inputs(batch_id) == ["a", "b", "c"]

    @pytest.mark.rule("SUB-1", "SUB-6")
    def test_takes_lines_in_any_order_with_gaps(self):
        """Lines are places in a file: they may have gaps and come in any order."""
        batch_id = batches.submit("bank", "echo", [BatchInput(9, "i"), BatchInput(2**31 - 1, "z"), BatchInput(2, "b")])
        assert lines(batch_id) == [2, 9, 2**31 - 1]
        assert inputs(batch_id) == ["b", "i", "z"]

    @pytest.mark.rule("SUB-1")
    def test_numbers_rows_on_from_the_largest_line(self):
        """Where lines are mixed, a row without one follows the largest so far."""
        batch_id = batches.submit("bank", "echo", ["a", BatchInput(9, "i"), "j", BatchInput(4, "d"), "k"])
        assert lines(batch_id) == [1, 4, 9, 10, 11]
        assert inputs(batch_id) == ["a", "d", "i", "j", "k"]

    @pytest.mark.rule("SUB-1")
    @pytest.mark.parametrize(
        "value",
        [
            0,
            False,
            "",
            [],
            -1.5,
            10**1000,
            "\\N",
            "\\.",
            "\\u0000",
            "tab \t newline \n return \r quote \" ' backslash \\ percent %s",
            "Späte Flüge ✈️ 日本語 \u2028",
            {"": {"a": [None, {"b": "\\"}]}},
            BatchInput(5, [BatchInput.__name__]),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_keeps_the_input_as_it_was_given(self, value):
        """Any JSON value is stored and read as it was."""
        batch_id = batches.submit("bank", "echo", [value])
        assert inputs(batch_id) == [value.input if isinstance(value, BatchInput) else value]

    @pytest.mark.rule("SUB-2")
    @pytest.mark.parametrize(("wait", "status"), [(True, Status.WAIT), (False, Status.QUEUED)])
    def test_waits_when_told(self, wait, status):
        """A batch is kept back, or queued at once."""
        batch_id = batches.submit("bank", "echo", [1], wait=wait)
        assert batches.status(batch_id).status is status

    @pytest.mark.rule("SUB-2")
    def test_nobody_works_on_a_waiting_batch(self, registry):
        """Rows of a waiting batch are not claimed."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        assert drain() == 0
        assert batches.line(batch_id, 1).status is Status.QUEUED
        check_invariants()

    @pytest.mark.rule("SUB-3")
    def test_folds_names(self, registry):
        """App and op are stored in lower case, and so found by a processor that was registered in another."""
        register_batch_processor("BANK", "Transfer", echo)
        batch_id = batches.submit("Bank", "TRANSFER", [1])
        batch = Batch.objects.get(pk=batch_id)
        assert (batch.app, batch.op) == ("bank", "transfer")
        assert drain() == 1
        check_invariants()

    @pytest.mark.rule("SUB-4")
    @pytest.mark.parametrize("rows", [[], (), iter(()), set()], ids=["list", "tuple", "iterator", "set"])
    def test_refuses_no_rows(self, rows):
        """A batch has a row at least."""
        with refusing() as caught:
            batches.submit("bank", "echo", rows)
        assert str(caught.value) == "rows: is empty: there must be a row."
        assert (caught.value.field, caught.value.line) == ("rows", None)

    @pytest.mark.rule("SUB-5")
    def test_accepts_the_limit(self, settings):
        """Exactly BATCH_ROWS_MAX rows are a batch."""
        settings.ALYA = {"BATCH_ROWS_MAX": 3}
        assert batches.status(batches.submit("bank", "echo", [1, 2, 3])).nrows == 3

    @pytest.mark.rule("SUB-5")
    def test_refuses_more_than_the_limit(self, settings):
        """One row more is refused, and an endless iterable comes to an end."""
        settings.ALYA = {"BATCH_ROWS_MAX": 3}
        for rows in ([1, 2, 3, 4], itertools.count()):
            with refusing() as caught:
                batches.submit("bank", "echo", rows)
            assert str(caught.value) == "rows: has more than 3 rows, the limit."
            assert caught.value.field == "rows"

    @pytest.mark.rule("SUB-5")
    def test_refuses_more_than_the_limit_after_a_stored_block(self, settings):
        """Blocks that were written already are taken back."""
        settings.ALYA = {"BATCH_ROWS_MAX": BLOCK_ROWS + 1}
        with refusing() as caught:
            batches.submit("bank", "echo", range(BLOCK_ROWS + 2))
        assert str(caught.value) == "rows: has more than 5001 rows, the limit."

    @pytest.mark.rule("SUB-6")
    @pytest.mark.parametrize("line", [0, -1, 2**31, -(10**30)])
    def test_refuses_a_line_out_of_range(self, line):
        """One bad line is enough, and named."""
        with refusing() as caught:
            batches.submit("bank", "echo", [BatchInput(5, "a"), BatchInput(line, "b")])
        assert str(caught.value) == f"line {line}: a line is a number from 1 to 2147483647."
        assert caught.value.line == line

    @pytest.mark.rule("SUB-6")
    @pytest.mark.parametrize("line", [True, "1", 1.0, None])
    def test_refuses_a_line_that_is_no_whole_number(self, line):
        """A bool is no line, nor is a text or a float."""
        with refusing() as caught:
            batches.submit("bank", "echo", [BatchInput(line, "a")])
        assert str(caught.value) == f"a line is a whole number, not {line!r}."

    @pytest.mark.rule("SUB-6")
    def test_refuses_a_row_beyond_the_largest_line(self):
        """A row that would follow the largest line there can be is refused."""
        with refusing() as caught:
            batches.submit("bank", "echo", [BatchInput(2**31 - 1, "a"), "b"])
        assert str(caught.value) == "line 2147483648: a line is a number from 1 to 2147483647."

    @pytest.mark.rule("SUB-6")
    def test_refuses_a_line_given_twice(self):
        """A duplicate line is named."""
        with refusing() as caught:
            batches.submit("bank", "echo", [BatchInput(1, "a"), BatchInput(7, "b"), BatchInput(7, "c")])
        assert str(caught.value) == "line 7: the batch has this line twice."
        assert caught.value.line == 7

    @pytest.mark.rule("SUB-6")
    def test_refuses_a_line_given_twice_across_blocks(self):
        """A duplicate is found however far it is from the first."""
        rows = itertools.chain((BatchInput(n, n) for n in range(1, BLOCK_ROWS + 11)), [BatchInput(17, "again")])
        with refusing() as caught:
            batches.submit("bank", "echo", rows)
        assert str(caught.value) == "line 17: the batch has this line twice."
        assert caught.value.line == 17

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize(("value", "message"), UNSTORABLE.values(), ids=UNSTORABLE)
    def test_refuses_an_input_that_json_cannot_hold(self, value, message):
        """The line, the place inside the input and the fault are named."""
        with refusing() as caught:
            batches.submit("bank", "echo", ["good", value])
        assert str(caught.value) == f"line 2: {message}"
        assert caught.value.line == 2
        assert caught.value.field == message.partition(":")[0]

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize("name", ["circular", "deep", "huge"])
    def test_refuses_an_input_that_cannot_be_written_out(self, name):
        """A value that contains itself, is very deep or a number of 5000 digits stops nothing but the submit."""
        with refusing() as caught:
            batches.submit("bank", "echo", ["good", a_value(name)])
        assert caught.value.line == 2
        assert str(caught.value).startswith("line 2: input: ")

    @pytest.mark.rule("SUB-7")
    def test_stores_no_input_that_cannot_be_read(self, registry):
        """The deepest value that is accepted can be processed: none may break the worker that reads it."""
        register_batch_processor("bank", "depth", lambda row: row.line)
        batch_id = deepest(lambda value: batches.submit("bank", "depth", [value]))
        assert drain() == 1
        assert batches.line(batch_id, 1).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("SUB-7")
    def test_stores_no_context_that_cannot_be_read(self, registry):
        """As of a row's input."""
        register_batch_processor("bank", "depth", lambda row: row.line)
        batch_id = deepest(lambda value: batches.submit("bank", "depth", [1], context={"a": value}))
        assert drain() == 1
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("SUB-7")
    def test_refuses_a_fault_after_a_stored_block(self):
        """A bad row behind thousands of good ones leaves nothing of them."""
        with refusing() as caught:
            batches.submit("bank", "echo", itertools.chain(range(BLOCK_ROWS + 5), [NAN]))
        assert str(caught.value) == "line 5006: input: NaN cannot be stored as JSON."

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize(
        ("context", "message"),
        [
            ([], "context: must be a JSON object, not list."),
            ("{}", "context: must be a JSON object, not str."),
            (0, "context: must be a JSON object, not int."),
            ({"a": NAN}, "context.a: NaN cannot be stored as JSON."),
            ({"a": {"b": "\0"}}, "context.a.b: a NUL character cannot be stored as JSON."),
            ({"\ud800": 1}, "context: a lone surrogate in a key cannot be stored as JSON."),
            ({"at": datetime.date(2013, 1, 1)}, "context.at: a value of type date cannot be stored as JSON."),
        ],
    )
    def test_refuses_a_context_that_is_no_json_object(self, context, message):
        """The context is an object, of JSON throughout."""
        with refusing() as caught:
            batches.submit("bank", "echo", [1], context=context)
        assert str(caught.value) == message
        assert caught.value.field == message.partition(":")[0]

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize("name", ["circular", "deep", "huge"])
    def test_refuses_a_context_that_cannot_be_written_out(self, name):
        """As of a row's input."""
        with refusing() as caught:
            batches.submit("bank", "echo", [1], context={"a": a_value(name)})
        assert caught.value.field.startswith("context")

    @pytest.mark.rule("SUB-3")
    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:10])
    @pytest.mark.parametrize("field", ["app", "op"])
    def test_refuses_a_bad_name(self, field, name):
        """App and op must be names."""
        with refusing() as caught:
            batches.submit(**{"app": "bank", "op": "echo", "rows": [1], field: name})
        assert caught.value.field == field

    @pytest.mark.parametrize("field", ["input_file", "requested_by"])
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("x" * 256, "has 256 characters, the limit is 255."),
            ("a\0", "has a NUL character."),
            ("\ud800", "has a lone surrogate."),
            (None, "must be a string, not NoneType."),
        ],
        ids=["long", "nul", "surrogate", "none"],
    )
    def test_refuses_a_bad_text(self, field, text, fault):
        """The file's and the person's name must be texts that can be stored."""
        with refusing() as caught:
            batches.submit("bank", "echo", [1], **{field: text})
        assert str(caught.value) == f"{field}: {fault}"
        assert caught.value.field == field

    @pytest.mark.rule("SUB-7")
    @pytest.mark.parametrize(
        ("rows", "type_name"),
        [
            ("abc", "str"),
            (b"abc", "bytes"),
            ({"a": 1}, "dict"),
            (None, "NoneType"),
            (7, "int"),
            (BatchInput(1, "a"), "BatchInput"),
            (AsyncRows(), "AsyncRows"),
        ],
    )
    def test_refuses_rows_that_are_no_rows(self, rows, type_name):
        """A text, an object or a single row was hardly meant as many rows."""
        with refusing() as caught:
            batches.submit("bank", "echo", rows)
        assert str(caught.value) == f"rows: must be an iterable of rows, not {type_name}."
        assert caught.value.field == "rows"

    @pytest.mark.rule("API-4")
    @pytest.mark.parametrize("good", [0, 3, BLOCK_ROWS + 3])
    def test_stores_nothing_when_the_rows_break_off(self, good):
        """What the iterable raises comes out as it is, and nothing is stored."""

        def breaking():
            yield from range(good)
            raise LookupError("the file ends here")

        with refusing(LookupError) as caught:
            batches.submit("bank", "echo", breaking())
        assert str(caught.value) == "the file ends here"

    @pytest.mark.rule("API-4")
    def test_passes_on_an_integrity_error_of_the_rows(self):
        """A statement that fails inside the iterable is that iterable's error, not a duplicate line."""

        def failing():
            yield 1
            Batch.objects.create(app="UPPER", op="x", kind=Kind.BATCH, status=Status.QUEUED)

        with refusing(IntegrityError):
            batches.submit("bank", "echo", failing())

    @pytest.mark.rule("SUB-9")
    def test_takes_rows_that_come_from_the_same_connection(self):
        """The iterable may ask the database for each row while it is read, across blocks."""
        first = batches.submit("bank", "echo", range(BLOCK_ROWS + 10))
        rows = BatchRow.objects.filter(batch=first).order_by("line").values_list("input", flat=True)
        second = batches.submit("bank", "echo", rows.iterator(chunk_size=100))
        asked = (BatchRow.objects.filter(batch=first, line=line).get().input for line in (3, 2, 1))
        third = batches.submit("bank", "echo", asked)
        assert batches.status(second).nrows == BLOCK_ROWS + 10
        assert inputs(third) == [2, 1, 0]
        check_invariants()

    @pytest.mark.rule("SUB-8")
    def test_needs_no_processor_here(self, registry):
        """The workers may be another service: the op need not be registered."""
        batch_id = batches.submit("bank", "nobody_here", [1])
        assert drain() == 0
        assert batches.status(batch_id).status is Status.QUEUED
        check_invariants()

    @pytest.mark.rule("SUB-9")
    def test_writes_blocks_of_rows(self):
        """The number of statements grows with the blocks, not with the rows."""

        def statements(nrows):
            with CaptureQueriesContext(connection) as captured:
                batches.submit("bank", "echo", range(nrows))
            return len(captured)

        one_block = statements(1)
        assert statements(FIRST_BLOCK_ROWS) == one_block
        two_blocks = statements(FIRST_BLOCK_ROWS + 1)
        assert two_blocks - one_block <= 3
        assert statements(FIRST_BLOCK_ROWS + BLOCK_ROWS) == two_blocks
        assert statements(FIRST_BLOCK_ROWS + 3 * BLOCK_ROWS) - two_blocks == 2 * (two_blocks - one_block)

    @pytest.mark.rule("SUB-9")
    def test_writes_fewer_of_larger_rows_at_once(self):
        """Blocks are cut by what they hold: large rows do not fill the memory."""

        def statements(nrows):
            with CaptureQueriesContext(connection) as captured:
                batches.submit("bank", "echo", ["x" * 100_000] * nrows)
            return len(captured)

        assert statements(FIRST_BLOCK_ROWS + 320) - statements(FIRST_BLOCK_ROWS + 80) > 3

    @pytest.mark.parametrize("weight", [0, -1, 1000.1, NAN, INFINITY, True, "1", None, decimal.Decimal(1)], ids=repr)
    def test_refuses_a_weight_out_of_range(self, weight):
        """A weight is a number above 0 and at most 1000."""
        with refusing() as caught:
            batches.submit("bank", "echo", [1], weight=weight)
        assert str(caught.value) == f"weight: must be a number above 0 and at most 1000, not {weight!r}."
        assert caught.value.field == "weight"

    @pytest.mark.parametrize("weight", [1000, 0.5, 1e-9, 5e-324])
    def test_works_with_any_weight_it_accepts(self, registry, weight):
        """However light or heavy, a batch is worked off beside others."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", range(30), weight=weight)
        other = batches.submit("bank", "echo", [1])
        assert drain() == 31
        assert batches.status(batch_id).status is Status.SUCCESS
        assert batches.status(other).status is Status.SUCCESS
        check_invariants()


class TransactionTests:
    @pytest.mark.rule("API-7")
    def test_submit_is_taken_back_with_the_caller_s_transaction(self):
        """A rolled back submit leaves nothing."""

        def submit_and_fail():
            with transaction.atomic():
                batches.submit("bank", "echo", [1])
                raise LookupError

        before = stored()
        with pytest.raises(LookupError):
            submit_and_fail()
        assert stored() == before

    @pytest.mark.rule("API-7")
    @pytest.mark.parametrize("verb", ["append", "append and release", "release", "abort"])
    def test_a_verb_is_taken_back_with_the_caller_s_transaction(self, verb):
        """What a verb changed is as before when the caller rolls back, and reads say so."""
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        act = {
            "append": lambda: batches.append(batch_id, [2]),
            "append and release": lambda: batches.append(batch_id, [2], wait=False),
            "release": lambda: batches.release(batch_id),
            "abort": lambda: batches.abort(batch_id),
        }[verb]

        def act_and_fail():
            with transaction.atomic():
                act()
                batches.status(batch_id)
                raise LookupError

        before = stored()
        with pytest.raises(LookupError):
            act_and_fail()
        assert stored() == before
        assert batches.status(batch_id).status is Status.WAIT

    @pytest.mark.rule("API-7")
    def test_verbs_follow_each_other_in_one_transaction(self):
        """Inside a transaction every verb sees what the one before did."""
        with transaction.atomic():
            batch_id = batches.submit("bank", "echo", [1], wait=True)
            assert batches.append(batch_id, [2]) == 2
            assert batches.release(batch_id) == 2
            assert batches.status(batch_id).status is Status.QUEUED
            assert batches.abort(batch_id).naborted == 2
            assert batches.result(batch_id).status is Status.ABORTED
        check_invariants()

    @pytest.mark.rule("API-6")
    def test_reads_take_no_locks(self, registry):
        """No verb that only asks locks a row."""
        batch_id = put_into(Status.FAILED)
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            batches.status(batch_id)
            batches.result(batch_id)
            list(batches.iter_rows(batch_id))
            batches.line(batch_id, 1)
            with pytest.raises(NotFound):
                batches.open_output(batch_id, "a.csv")
        assert len(captured) > 0
        assert not [query["sql"] for query in captured if " FOR " in query["sql"].upper()]


class AppendTests:
    @pytest.mark.rule("APP-3", "APP-4")
    def test_adds_rows_and_returns_how_many_there_are(self):
        """The answer counts earlier and new rows; the batch goes on waiting."""
        batch_id = batches.submit("bank", "echo", ["a"], wait=True)
        assert batches.append(batch_id, ["b", "c"]) == 3
        assert batches.append(batch_id, iter("d")) == 4
        summary = batches.status(batch_id)
        assert (summary.status, summary.nrows) == (Status.WAIT, 4)
        assert inputs(batch_id) == ["a", "b", "c", "d"]
        assert lines(batch_id) == [1, 2, 3, 4]
        check_invariants()

    @pytest.mark.rule("APP-3")
    def test_numbers_rows_on_from_the_largest_line(self):
        """Rows without lines follow the batch's largest line; those with lines fill gaps."""
        batch_id = batches.submit("bank", "echo", [BatchInput(9, "i"), BatchInput(2, "b")], wait=True)
        assert batches.append(batch_id, ["j", BatchInput(4, "d"), "k"]) == 5
        assert lines(batch_id) == [2, 4, 9, 10, 11]
        assert inputs(batch_id) == ["b", "d", "i", "j", "k"]

    @pytest.mark.rule("APP-4")
    def test_releases_when_told(self, registry):
        """The last append may let the batch go."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", ["a"], wait=True)
        assert batches.append(batch_id, ["b"], wait=False) == 2
        assert batches.status(batch_id).status is Status.QUEUED
        assert drain() == 2
        check_invariants()

    @pytest.mark.rule("APP-1")
    @pytest.mark.parametrize("status", [Status.QUEUED, Status.SUCCESS, Status.FAILED, Status.ABORTED])
    @pytest.mark.parametrize("wait", [True, False])
    def test_refuses_a_batch_that_no_longer_waits(self, registry, status, wait):
        """Rows are added to a waiting batch only; the error carries the state."""
        batch_id = put_into(status)
        with refusing(InvalidState) as caught:
            batches.append(batch_id, [6], wait=wait)
        assert str(caught.value) == f"The batch {batch_id} takes no more rows: its status is {status.label}."
        assert caught.value.status is status
        check_invariants()

    @pytest.mark.rule("APP-1")
    def test_refuses_a_running_batch(self, registry):
        """A batch that has started takes no more rows."""

        def append(batch_id):
            with pytest.raises(InvalidState) as caught:
                batches.append(batch_id, [6])
            return caught.value

        batch_id, (error,) = while_running(append)
        assert str(error) == f"The batch {batch_id} takes no more rows: its status is in progress."
        assert error.status is Status.IN_PROGRESS
        assert batches.status(batch_id).nrows == 4
        check_invariants()

    @pytest.mark.rule("APP-2")
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "rows: is empty: there must be a row."),
            ({"a": 1}, "rows: must be an iterable of rows, not dict."),
            ("abc", "rows: must be an iterable of rows, not str."),
            (None, "rows: must be an iterable of rows, not NoneType."),
            ([6, NAN], "line 4: input: NaN cannot be stored as JSON."),
            ([6, {"a": {1}}], "line 4: input.a: a value of type set cannot be stored as JSON."),
            ([6, BatchInput(0, 1)], "line 0: a line is a number from 1 to 2147483647."),
            ([6, BatchInput(True, 1)], "a line is a whole number, not True."),
            ([BatchInput(5, 1), BatchInput(5, 1)], "line 5: the batch has this line twice."),
            ([6, BatchInput(2, 1)], "line 2: the batch has this line twice."),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_refuses_what_submit_refuses(self, rows, message):
        """One bad row, also one whose line an earlier row has, rejects all."""
        batch_id = batches.submit("bank", "echo", [2, 4], wait=True)
        with refusing() as caught:
            batches.append(batch_id, rows, wait=False)
        assert str(caught.value) == message
        assert (batches.status(batch_id).status, batches.status(batch_id).nrows) == (Status.WAIT, 2)
        assert batches.append(batch_id, [6]) == 3
        check_invariants()

    @pytest.mark.rule("APP-2")
    def test_refuses_a_duplicate_across_blocks(self):
        """A line of a later block is compared with those of earlier appends too."""
        batch_id = batches.submit("bank", "echo", [BatchInput(9_000, "z")], wait=True)
        with refusing() as caught:
            batches.append(batch_id, (BatchInput(n, n) for n in range(1, 9_002)))
        assert str(caught.value) == "line 9000: the batch has this line twice."
        assert caught.value.line == 9_000

    @pytest.mark.rule("APP-2", "SUB-5")
    def test_counts_earlier_rows_towards_the_limit(self, settings):
        """The limit is the batch's, not the call's; exactly the limit is accepted."""
        settings.ALYA = {"BATCH_ROWS_MAX": 3}
        batch_id = batches.submit("bank", "echo", [2, 4], wait=True)
        with refusing() as caught:
            batches.append(batch_id, [6, 8])
        assert str(caught.value) == "rows: has more than 3 rows, the limit."
        assert batches.append(batch_id, [6]) == 3

    @pytest.mark.rule("APP-2", "API-4")
    def test_adds_nothing_when_the_rows_break_off(self):
        """What the iterable raises comes out as it is; earlier rows stay alone."""

        def breaking():
            yield from range(BLOCK_ROWS + 3)
            raise LookupError("the file ends here")

        batch_id = batches.submit("bank", "echo", [1], wait=True)
        with refusing(LookupError):
            batches.append(batch_id, breaking(), wait=False)
        assert batches.status(batch_id).status is Status.WAIT
        assert batches.append(batch_id, [2]) == 2

    @pytest.mark.rule("APP-2")
    def test_takes_rows_that_come_from_the_same_connection(self):
        """The iterable may read the very batch that it is added to."""
        batch_id = batches.submit("bank", "echo", ["a", "b"], wait=True)
        rows = BatchRow.objects.filter(batch=batch_id).order_by("line").values_list("input", flat=True)
        assert batches.append(batch_id, rows.iterator()) == 4
        assert inputs(batch_id) == ["a", "b", "a", "b"]


class ReleaseTests:
    @pytest.mark.rule("WOF-1")
    def test_lets_a_waiting_batch_go(self, registry):
        """A released batch is queued, and worked off."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1, 2], wait=True)
        assert batches.release(batch_id) == 2
        assert batches.status(batch_id).status is Status.QUEUED
        assert drain() == 2
        check_invariants()

    @pytest.mark.rule("WOF-2")
    def test_leaves_a_queued_batch_queued(self):
        """Released again, it answers the same."""
        batch_id = batches.submit("bank", "echo", [1, 2], wait=True)
        batches.release(batch_id)
        before = stored()
        assert batches.release(batch_id) == 2
        assert stored() == before

    @pytest.mark.rule("WOF-3")
    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED, Status.ABORTED])
    def test_refuses_a_batch_that_has_ended(self, registry, status):
        """A final state stays; the error carries it."""
        batch_id = put_into(status)
        with refusing(InvalidState) as caught:
            batches.release(batch_id)
        assert str(caught.value) == f"The batch {batch_id} is not waiting: its status is {status.label}."
        assert caught.value.status is status
        check_invariants()

    @pytest.mark.rule("WOF-3")
    def test_refuses_a_running_batch(self, registry):
        """A batch that has started is not waiting."""

        def release(batch_id):
            with pytest.raises(InvalidState) as caught:
                batches.release(batch_id)
            return caught.value

        batch_id, (error,) = while_running(release)
        assert str(error) == f"The batch {batch_id} is not waiting: its status is in progress."
        assert error.status is Status.IN_PROGRESS
        check_invariants()


class StatusTests:
    @pytest.mark.rule("STA-1")
    @pytest.mark.parametrize(
        ("status", "counts"),
        [
            (Status.WAIT, (0, 0, 0)),
            (Status.QUEUED, (0, 0, 0)),
            (Status.SUCCESS, (2, 0, 0)),
            (Status.FAILED, (1, 1, 0)),
            (Status.ABORTED, (0, 0, 2)),
        ],
    )
    def test_answers_in_every_state(self, registry, status, counts):
        """The summary has the state and the counts, whatever the state."""
        batch_id = put_into(status)
        for _ in range(2):
            summary = batches.status(batch_id)
            assert type(summary) is Summary
            assert (summary.status, summary.kind, summary.nrows) == (status, Kind.BATCH, 2)
            assert (summary.nsuccess, summary.nfailed, summary.naborted) == counts
            assert summary.try_later is (not status.is_final)
            assert (summary.held, summary.parent, summary.output_files) == (False, None, {})
            cache.clear()
        check_invariants()

    @pytest.mark.rule("STA-1")
    def test_counts_what_has_ended_so_far(self, registry):
        """The figures of a running batch are live."""
        _, (summary,) = while_running(batches.status)
        assert (summary.status, summary.try_later) == (Status.IN_PROGRESS, True)
        assert (summary.nrows, summary.nsuccess, summary.nfailed, summary.naborted) == (4, 1, 1, 0)
        assert summary.output_files == {}
        check_invariants()

    @pytest.mark.rule("STA-1", "OUT-5")
    def test_names_the_output_files(self, registry):
        """A finished batch's summary maps logical names to objects."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}, {"b.csv": "y"}])
        drain()
        assert set(batches.status(batch_id).output_files) == {"a.csv", "b.csv"}
        check_invariants()

    @pytest.mark.rule("STA-2")
    def test_reads_no_rows(self, registry):
        """Whatever the state, no row is looked at."""
        ids = [put_into(status) for status in Status if status is not Status.IN_PROGRESS]
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            for batch_id in ids:
                batches.status(batch_id)
        assert len(captured) >= len(ids)
        assert not [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]

    @pytest.mark.rule("STA-2")
    def test_reads_no_rows_of_a_running_batch(self, registry):
        """The live figures come from the progress, not from the rows."""

        def capture(batch_id):
            cache.clear()
            with CaptureQueriesContext(connection) as captured:
                batches.status(batch_id)
            return [query["sql"] for query in captured]

        _, (statements,) = while_running(capture)
        assert statements
        assert not [sql for sql in statements if "alya_batchrows" in sql]

    @pytest.mark.rule("STA-3")
    def test_of_a_finished_batch_needs_no_database(self, registry, django_assert_num_queries):
        """Once a batch has ended, the cache answers."""
        batch_id = put_into(Status.SUCCESS)
        with django_assert_num_queries(0):
            summary = batches.status(batch_id)
        assert (summary.status, summary.nsuccess) == (Status.SUCCESS, 2)


class ResultTests:
    @pytest.mark.rule("DON-1")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED])
    def test_of_a_batch_that_has_not_begun_is_empty(self, status):
        """There is nothing yet: try later."""
        result = batches.result(put_into(status))
        assert isinstance(result, BatchResult)
        assert (result.status, result.try_later, result.rows, result.output_files) == (status, True, (), {})
        assert (result.nrows, result.nsuccess, result.nfailed, result.naborted) == (2, 0, 0, 0)

    @pytest.mark.rule("DON-1")
    def test_of_a_running_batch_has_live_counts_and_no_rows(self, registry):
        """Of a running batch one learns how far it is, but no rows."""
        _, (result,) = while_running(batches.result)
        assert (result.status, result.try_later, result.rows) == (Status.IN_PROGRESS, True, ())
        assert (result.nrows, result.nsuccess, result.nfailed, result.naborted) == (4, 1, 1, 0)
        check_invariants()

    @pytest.mark.rule("DON-2")
    def test_of_a_finished_batch_has_every_row_in_the_order_of_lines(self, registry):
        """Each row has its line, state, result and messages, and who did it when."""
        register_batch_processor("bank", "fail", fail_odd)
        batch_id = batches.submit("bank", "fail", [BatchInput(8, 1), BatchInput(3, 2), BatchInput(2, 3)])
        drain()
        result = batches.result(batch_id)
        assert (result.status, result.try_later) == (Status.FAILED, False)
        assert (result.nrows, result.nsuccess, result.nfailed, result.naborted) == (3, 2, 1, 0)
        assert [(row.line, row.status, row.result, row.messages) for row in result.rows] == [
            (2, Status.SUCCESS, {}, ()),
            (3, Status.FAILED, None, (ErrorMessage("odd", "line", ("3",)),)),
            (8, Status.SUCCESS, {}, ()),
        ]
        for row in result.rows:
            assert row.attempts == 1
            assert row.done_by
            assert row.requested_at <= row.claimed_at <= row.done_at
        check_invariants()

    @pytest.mark.rule("DON-2")
    @pytest.mark.parametrize("value", [{"a": 1}, [1, None], "x", 0, False, "", 10**1000, 1.5], ids=repr)
    def test_has_what_the_processor_returned(self, registry, value):
        """A result is JSON of any kind, also what counts as false."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [value])
        drain()
        assert batches.result(batch_id).rows[0].result == value
        check_invariants()

    @pytest.mark.rule("DON-2")
    def test_of_a_broken_processor_has_the_engine_s_message(self, registry):
        """What a processor raised by mistake fails its row, and is told."""
        register_batch_processor("bank", "broken", broken)
        batch_id = batches.submit("bank", "broken", [1])
        drain(raise_errors=False)
        (row,) = batches.result(batch_id).rows
        assert row.messages == (
            ErrorMessage("processing_error", vals=("ZeroDivisionError: division by zero",), msgid=10),
        )
        check_invariants()

    @pytest.mark.rule("DON-3")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED, Status.SUCCESS, Status.FAILED, Status.ABORTED])
    def test_is_the_same_with_and_without_the_cache(self, registry, status, django_capture_on_commit_callbacks):
        """The cache changes no answer."""
        with django_capture_on_commit_callbacks(execute=True):
            batch_id = put_into(status)
        warm = batches.result(batch_id), batches.status(batch_id)
        cache.clear()
        assert (batches.result(batch_id), batches.status(batch_id)) == warm
        check_invariants()

    @pytest.mark.rule("DON-4")
    def test_of_an_aborted_batch_keeps_what_had_ended(self, registry):
        """Rows that ended stay as they are; aborted ones have nothing."""
        batch_id, _ = while_running(batches.abort)
        result = batches.result(batch_id)
        assert (result.status, result.output_files) == (Status.ABORTED, {})
        assert (result.nsuccess, result.nfailed, result.naborted) == (1, 1, 2)
        assert [(row.line, row.status, row.result, row.messages) for row in result.rows] == [
            (1, Status.FAILED, None, (ErrorMessage("odd"),)),
            (2, Status.SUCCESS, {}, ()),
            (3, Status.ABORTED, None, ()),
            (4, Status.ABORTED, None, ()),
        ]
        assert all(row.done_at for row in result.rows)
        check_invariants()

    @pytest.mark.rule("DON-5")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED, Status.SUCCESS, Status.FAILED, Status.ABORTED])
    def test_changes_nothing(self, registry, status):
        """Reading leaves every batch and row as it is."""
        batch_id = put_into(status)
        before = stored()
        batches.result(batch_id)
        batches.status(batch_id)
        list(batches.iter_rows(batch_id))
        batches.line(batch_id, 1)
        assert stored() == before


class IterRowsTests:
    @pytest.mark.rule("DON-6")
    def test_reads_page_by_page(self):
        """Each statement asks for a limited number of rows, and the first page comes before the second is read."""
        batch_id = batches.submit("bank", "echo", range(4_001))
        with CaptureQueriesContext(connection) as captured:
            rows = batches.iter_rows(batch_id)
            assert next(rows).line == 1
            first_page = len(captured)
            assert [row.line for row in rows] == list(range(2, 4_002))
        pages = [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]
        assert first_page < len(captured)
        assert all("LIMIT" in sql for sql in pages)
        assert len(pages) >= 3

    @pytest.mark.rule("DON-6")
    def test_leaves_inputs_in_the_database(self):
        """What an outcome does not hold is not read."""
        batch_id = batches.submit("bank", "echo", [1])
        with CaptureQueriesContext(connection) as captured:
            list(batches.iter_rows(batch_id))
        assert not [query["sql"] for query in captured if '"alya_batchrows"."input"' in query["sql"]]

    def test_yields_rows_of_an_unfinished_batch_as_they_are(self, registry):
        """It does not wait for the end."""
        _, (rows,) = while_running(lambda batch_id: [(r.line, r.status) for r in batches.iter_rows(batch_id)])
        assert rows == [
            (1, Status.FAILED),
            (2, Status.SUCCESS),
            (3, Status.IN_PROGRESS),
            (4, Status.QUEUED),
        ]

    def test_filters_by_status_and_line(self, registry):
        """A page of a list, or only the failed rows."""
        register_batch_processor("bank", "fail", fail_odd)
        batch_id = batches.submit("bank", "fail", range(6))
        drain()
        assert [row.line for row in batches.iter_rows(batch_id, status=Status.FAILED)] == [1, 3, 5]
        assert [row.line for row in batches.iter_rows(batch_id, after_line=4)] == [5, 6]
        assert [row.line for row in batches.iter_rows(batch_id, status=Status.FAILED, after_line=1)] == [3, 5]
        assert list(batches.iter_rows(batch_id, after_line=6)) == []

    def test_refuses_what_is_no_status(self, registry):
        """A state that no row can have is an error, not an empty answer."""
        batch_id = batches.submit("bank", "echo", [1])
        with refusing() as caught:
            batches.iter_rows(batch_id, status="done")
        assert str(caught.value) == "status: 'done' is no status."
        check_invariants()


class LineTests:
    def test_tells_what_became_of_one_row(self, registry):
        """One line of a million is found by its number."""
        batch_id, _ = while_running(lambda batch_id: None)
        assert batches.line(batch_id, 1).messages == (ErrorMessage("odd"),)
        assert batches.line(batch_id, 2).result == {}

    def test_of_a_row_that_waits_is_empty(self):
        """Nothing has happened to it yet."""
        row = batches.line(batches.submit("bank", "echo", [1]), 1)
        assert (row.status, row.result, row.messages) == (Status.QUEUED, None, ())
        assert (row.attempts, row.done_by, row.claimed_at, row.done_at) == (0, "", None, None)

    @pytest.mark.rule("API-2")
    def test_says_that_there_is_no_such_line(self):
        """A line that the batch does not have is not found."""
        batch_id = batches.submit("bank", "echo", [1])
        with pytest.raises(NotFound) as caught:
            batches.line(batch_id, 3269)
        assert str(caught.value) == f"The batch {batch_id} has no line 3269."

    @pytest.mark.rule("API-1")
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (0, "line 0: a line is a number from 1 to 2147483647."),
            (2**31, "line 2147483648: a line is a number from 1 to 2147483647."),
            (True, "a line is a whole number, not True."),
            ("1", "a line is a whole number, not '1'."),
        ],
    )
    def test_refuses_what_is_no_line(self, line, message):
        """A line that no row can have is invalid input."""
        batch_id = batches.submit("bank", "echo", [1])
        with refusing() as caught:
            batches.line(batch_id, line)
        assert str(caught.value) == message


class OpenOutputTests:
    @pytest.mark.rule("OUT-5")
    def test_opens_a_file_of_a_finished_batch(self, registry):
        """The file can be read by its logical name."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}, {"a.csv": "ü"}])
        drain()
        with batches.open_output(batch_id, "a.csv") as file:
            assert file.read() == "x\nü\n".encode()
        check_invariants()

    @pytest.mark.rule("API-2")
    def test_says_that_there_is_no_such_file(self, registry):
        """A name that no row contributed to is not found, nor is a file of an unfinished batch."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}])
        for name in ("a.csv", "b.csv", "", "../a.csv"):
            with pytest.raises(NotFound) as caught:
                batches.open_output(batch_id, name)
            assert str(caught.value) == f"The batch {batch_id} has no output file {name!r}."
        drain()
        with pytest.raises(NotFound) as caught:
            batches.open_output(batch_id, "b.csv")
        assert str(caught.value) == f"The batch {batch_id} has no output file 'b.csv'."


class AbortTests:
    @pytest.mark.rule("ABT-1")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED])
    def test_stops_a_batch_that_has_not_begun(self, registry, status):
        """Every row is aborted, the batch has ended, and the figures say so."""
        batch_id = put_into(status)
        summary = batches.abort(batch_id)
        assert (summary.status, summary.kind, summary.nrows, summary.try_later) == (
            Status.ABORTED,
            Kind.BATCH,
            2,
            False,
        )
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == (0, 0, 2)
        assert summary.output_files == {}
        assert batches.status(batch_id) == summary
        assert Batch.objects.get(pk=batch_id).done_at is not None
        for row in batches.iter_rows(batch_id):
            assert row.status is Status.ABORTED
            assert row.done_at is not None
        register_batch_processor("bank", "echo", echo)
        assert drain() == 0
        check_invariants()

    @pytest.mark.rule("ABT-1", "ABT-2")
    def test_keeps_the_rows_that_have_ended(self, registry):
        """What has succeeded or failed stays, and is counted."""
        batch_id, (summary,) = while_running(batches.abort)
        assert summary.status is Status.ABORTED
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == (1, 1, 2)
        assert batches.status(batch_id) == summary
        check_invariants()

    @pytest.mark.rule("ABT-1", "OUT-1")
    def test_leaves_no_output_files(self, registry):
        """An aborted batch joins no lines, also none of rows that succeeded."""

        class AbortThird(BatchProcessor):
            chunk_rows = 1

            def do_batch_job(self, row):
                if row.line == 3:
                    batches.abort(row.batch_id)
                return RowResult.success(output_lines={"a.csv": "x"})

        register_batch_processor("bank", "write", AbortThird)
        batch_id = batches.submit("bank", "write", range(4))
        drain()
        assert batches.status(batch_id).output_files == {}
        assert batches.status(batch_id).nsuccess == 2
        check_invariants()

    @pytest.mark.rule("ABT-3")
    @pytest.mark.parametrize(("status", "counts"), [(Status.SUCCESS, (2, 0, 0)), (Status.FAILED, (1, 1, 0))])
    def test_tells_that_a_batch_has_ended(self, registry, status, counts):
        """A batch that has succeeded or failed is not stopped; the error carries how it ended."""
        batch_id = put_into(status)
        with refusing(AlreadyDone) as caught:
            batches.abort(batch_id)
        summary = caught.value.summary
        assert str(caught.value) == f"The batch {batch_id} has ended already."
        assert caught.value.status is status
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == counts
        assert summary == batches.status(batch_id)
        check_invariants()

    @pytest.mark.rule("ABT-4")
    def test_tells_an_aborted_batch_as_it_is(self, registry):
        """Aborted again, it answers the same and keeps its time."""
        batch_id, (summary,) = while_running(batches.abort)
        before = stored()
        assert batches.abort(batch_id) == summary
        assert stored() == before
        check_invariants()

    @pytest.mark.rule("ABT-5")
    def test_drops_what_is_being_computed(self, registry, settings):
        """The row in hand leaves nothing, and the others of its claim are not started once it is noticed."""
        settings.ALYA = {"FLUSH_SECONDS": 0}
        started = []

        def abort_second(row):
            started.append(row.line)
            if row.line == 2:
                batches.abort(row.batch_id)
            return RowResult.success("late", output_lines={"a.csv": "late"})

        register_batch_processor("bank", "abort", abort_second)
        batch_id = batches.submit("bank", "abort", range(8))
        drain()
        assert started == [1, 2]
        result = batches.result(batch_id)
        assert (result.status, result.output_files) == (Status.ABORTED, {})
        assert (result.nsuccess, result.nfailed, result.naborted) == (1, 0, 7)
        assert [row.result for row in result.rows] == ["late"] + [None] * 7
        check_invariants()

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.rule("ABT-5")
    def test_drops_a_failure_that_comes_late(self, registry):
        """Messages of a row that was aborted meanwhile are dropped too, those of a broken processor as well."""

        def abort_and_fail(row):
            batches.abort(row.batch_id)
            if row.input:
                raise RowFailed("late")
            raise ZeroDivisionError

        register_batch_processor("bank", "abort", abort_and_fail)
        for value in (True, False):
            batch_id = batches.submit("bank", "abort", [value])
            drain(raise_errors=False)
            (row,) = batches.result(batch_id).rows
            assert (row.status, row.result, row.messages) == (Status.ABORTED, None, ())
        check_invariants()

    @pytest.mark.rule("ABT-6")
    @pytest.mark.parametrize(("processor", "status"), [(write_lines, Status.SUCCESS), (None, Status.FAILED)])
    def test_does_not_win_over_rows_that_have_all_ended(self, registry, settings, processor, status):
        """Where only the output files are missing, the batch is told as it is about to be, and then ends so."""

        def write_and_fail(row):
            return RowResult.failed("odd", output_lines=row.input)

        register_batch_processor("bank", "write", processor or write_and_fail)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}])
        working = settings.STORAGES
        settings.STORAGES = {**working, "default": {"BACKEND": "tests.test_batches.FullStorage"}}
        with pytest.raises(OSError, match="No space left on device"):
            drain()
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        with refusing(AlreadyDone) as caught:
            batches.abort(batch_id)
        assert str(caught.value) == f"The batch {batch_id} has ended already."
        assert caught.value.status is status
        assert caught.value.summary.nsuccess + caught.value.summary.nfailed == 1
        settings.STORAGES = working
        drain()
        summary = batches.status(batch_id)
        assert (summary.status, set(summary.output_files)) == (status, {"a.csv"})
        check_invariants()

    @pytest.mark.rule("ABT-8")
    def test_is_delivered_to_mark_done(self, registry):
        """The processor learns once that its batch was aborted, with the context it was submitted with."""
        recording = Recording()
        register_batch_processor("bank", "echo", recording)
        batch_id = batches.submit("bank", "echo", [1, 2], context={"a": 1})
        batches.abort(batch_id)
        drain()
        drain()
        (details,) = recording.done
        assert (details.id, details.status, details.context) == (batch_id, Status.ABORTED, {"a": 1})
        assert (details.nrows, details.nsuccess, details.nfailed, details.naborted) == (2, 0, 0, 2)
        assert details.output_files == {}
        assert recording.rows == []
        check_invariants()

    @pytest.mark.rule("ABT-9")
    def test_takes_the_same_statements_whatever_the_size(self):
        """A large batch costs as many statements as a small one, and none reads rows."""

        def statements(nrows):
            batch_id = batches.submit("bank", "echo", range(nrows))
            with CaptureQueriesContext(connection) as captured:
                batches.abort(batch_id)
            return [query["sql"] for query in captured]

        small, large = statements(1), statements(BLOCK_ROWS + 1)
        assert len(large) == len(small) <= 12
        assert not [sql for sql in large if sql.startswith("SELECT") and 'FROM "alya_batchrows"' in sql]
        check_invariants()
