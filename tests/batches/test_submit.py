from __future__ import annotations

import datetime
import decimal
import itertools
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from alya_django import (
    BatchInput,
    Status,
    batches,
    lifecycle,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.models import Batch, BatchRow, database
from alya_django.status import Kind
from alya_django.testing import drain
from alya_django.validation import EncodedJSON
from tests.batches.stored import BLOCK_ROWS, inputs, lines, refusing
from tests.batches.values import INFINITY, NAN, UNSTORABLE, AsyncRows, a_value, deepest
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

FIRST_BLOCK_ROWS = 500
BAD_NAMES = ["", "a b", ".a", "a/b", "flüge", "a" * 256, None, 7]


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

    @pytest.mark.rule("SUB-8")
    @pytest.mark.parametrize("is_debug", [True, False])
    @pytest.mark.parametrize("op", ["here", "nobody_here"])
    def test_tells_a_developer_of_an_op_that_nobody_registers(self, registry, settings, caplog, is_debug, op):
        """Once a batch or a slow query, where DEBUG is on."""
        settings.DEBUG = is_debug
        register_batch_processor("bank", "here", echo)
        register_slow_query_processor("bank", "here", echo)
        batch_id = batches.submit("Bank", op, [1], unique_key="k")
        batches.submit("bank", op, [1], unique_key="k")
        query_id = slow_queries.submit("bank", op, 1)
        told = [record.getMessage() for record in caplog.records if record.name == "alya_django"]
        expected = [f"the batch {batch_id} waits", f"the slow query {query_id} waits"] if is_debug else []
        assert len(told) == (len(expected) if op == "nobody_here" else 0)
        assert all(f"bank/nobody_here: {words}" in text for words, text in zip(expected, told, strict=False))

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

    @pytest.mark.rule("SUB-9")
    def test_cuts_a_block_at_rows_that_are_suddenly_large(self):
        """Of what is JSON already the size is known before it is in memory: small rows in front change nothing."""
        taken = []

        def rows():
            for number in range(1, 100):
                taken.append(number)
                yield BatchInput(number, EncodedJSON(f'"{"x" * 1_000_000}"'))

        blocks = []
        with database().transaction(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(lifecycle, "_insert_block", lambda batch_id, block: blocks.append(len(block)) or 1)
            lifecycle.insert_rows(uuid4(), rows())
        assert (len(taken), max(blocks)) == (99, 8)

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
