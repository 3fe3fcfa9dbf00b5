from __future__ import annotations

import dataclasses
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile

from alya_django import (
    BatchInput,
    BatchProcessor,
    ErrorMessage,
    InitBlock,
    Initializer,
    QueryResult,
    RetryLater,
    Row,
    RowFailed,
    RowResult,
    SlowQueryProcessor,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.options import Options, names
from alya_django.status import Kind
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import Recording, RecordingQuery

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


def a_row(**values):
    return Row(
        **{
            "batch_id": uuid4(),
            "app": "bank",
            "op": "echo",
            "line": 1,
            "input": {"a": 1},
            "context": {},
            "init_block": None,
            "attempt": 1,
            "key": "k:1",
            **values,
        }
    )


class ProcessorTests:
    @pytest.mark.parametrize(("base", "kind"), [(BatchProcessor, Kind.BATCH), (SlowQueryProcessor, Kind.SLOW_QUERY)])
    def test_has_the_options_as_they_are_by_default(self, base, kind):
        """Whoever reads the class sees all that it may say, and what it says if left alone."""
        stated = {
            name: value for name, value in vars(base).items() if not name.startswith("_") and not callable(value)
        }
        assert stated == {name: getattr(Options(), name) for name in names(kind)}


class RetryLaterTests:
    @pytest.mark.rule("LAT-3")
    @pytest.mark.parametrize("delay", [-1, float("inf"), float("nan"), 1e9, "1 s"])
    def test_refuses_a_delay_that_is_none(self, delay):
        """A row cannot wait for less than nothing, or for ever."""
        with pytest.raises(
            ValueError, match="RetryLater waits for a number of seconds, a year at most, not"
        ) as caught:
            RetryLater(delay)
        assert repr(delay) in str(caught.value)


class RowTests:
    def test_carries_what_a_processor_needs(self, registry):
        """A row knows its batch, app, op, line, input, context, attempt and key."""
        recording = Recording()
        register_batch_processor("bank", "echo", recording)
        batch_id = batches.submit("Bank", "Echo", [BatchInput(7, {"a": 1})], context={"day": "2013-01-01"})
        drain()
        (row,) = recording.rows
        assert (row.batch_id, row.app, row.op, row.line) == (batch_id, "bank", "echo", 7)
        assert (row.input, row.context, row.init_block) == ({"a": 1}, {"day": "2013-01-01"}, None)
        assert (row.attempt, row.key, row.aborted()) == (1, f"{batch_id}:7", False)
        check_invariants()

    def test_of_a_slow_query_is_line_0(self, registry):
        """A slow query has one row, of line 0, with a key of its own."""
        recording = RecordingQuery()
        register_slow_query_processor("bank", "report", recording)
        query_id = slow_queries.submit("bank", "report", {"a": 1}, context={"b": 2})
        drain()
        (row,) = recording.rows
        assert (row.batch_id, row.line, row.input, row.context) == (query_id, 0, {"a": 1}, {"b": 2})
        assert row.key == f"{query_id}:0"
        check_invariants()

    def test_cannot_be_changed(self):
        """A row is frozen and slotted."""
        row = a_row()
        with pytest.raises(dataclasses.FrozenInstanceError):
            row.line = 2
        assert not hasattr(row, "__dict__")

    def test_is_made_in_a_test_without_a_database(self):
        """A row is a plain value: equal to another with the same fields, and not aborted."""
        batch_id = uuid4()
        assert a_row(batch_id=batch_id) == a_row(batch_id=batch_id, is_aborted=lambda: True)
        assert a_row().aborted() is False

    @pytest.mark.rule("ABT-5")
    def test_tells_that_its_batch_was_aborted(self, registry):
        """A processor that asks learns that its batch was aborted while it was at work."""
        seen = []

        def long(row):
            batches.abort(row.batch_id)
            seen.append(row.aborted())

        register_batch_processor("bank", "long", long)
        batches.submit("bank", "long", [1])
        drain()
        assert seen == [True]
        check_invariants()


class BatchInputTests:
    def test_is_a_line_and_an_input(self):
        """It is given in this order, compared by value, and frozen."""
        assert BatchInput(3, "x") == BatchInput(line=3, input="x")
        with pytest.raises(dataclasses.FrozenInstanceError):
            BatchInput(3, "x").line = 4


class RowResultTests:
    def test_success_may_say_nothing(self):
        """A success has neither result nor messages nor output lines unless given."""
        assert RowResult.success() == RowResult(Status.SUCCESS, None, (), {})

    def test_success_carries_result_and_output_lines(self):
        """Output lines are named."""
        result = RowResult.success({"a": 1}, output_lines={"late.csv": "UA,1545"})
        assert (result.status, result.result, result.output_lines) == (
            Status.SUCCESS,
            {"a": 1},
            {"late.csv": "UA,1545"},
        )

    def test_failed_takes_messages_or_their_codes(self):
        """A text among the messages is an errcode."""
        result = RowResult.failed("odd", ErrorMessage("late", "delay", ("15",)), result=3, output_lines={"f": "x"})
        assert result == RowResult(
            Status.FAILED, 3, (ErrorMessage("odd"), ErrorMessage("late", "delay", ("15",))), {"f": "x"}
        )

    def test_is_stored_as_given(self, registry):
        """A failed row keeps its result and all its messages, in their order."""
        messages = ErrorMessage("odd"), ErrorMessage("b", "f", ("v",), msgid=9)
        register_batch_processor("bank", "fail", lambda row: RowResult.failed(*messages, result=[row.line]))
        batch_id = batches.submit("bank", "fail", [1])
        drain()
        row = batches.line(batch_id, 1)
        assert (row.status, row.result, row.messages) == (Status.FAILED, [1], messages)
        check_invariants()


class QueryResultTests:
    def test_success_carries_result_and_output_files(self):
        """An output file is a File or the name of an object."""
        file = ContentFile(b"x")
        result = QueryResult.success([1], output_files={"a.txt": file, "b.txt": "object"})
        assert (result.status, result.result, result.messages) == (Status.SUCCESS, [1], ())
        assert result.output_files == {"a.txt": file, "b.txt": "object"}

    def test_failed_takes_messages_or_their_codes(self):
        """A failure may have a result and output files too."""
        result = QueryResult.failed("odd", result=3, output_files={"f": "x"})
        assert result == QueryResult(Status.FAILED, 3, (ErrorMessage("odd"),), {"f": "x"})

    def test_success_and_failure_need_no_output_files(self):
        """Without output files there is an empty mapping."""
        assert QueryResult.success().output_files == {}
        assert QueryResult.failed().output_files == {}


class RowFailedTests:
    def test_makes_messages_of_codes(self):
        """Field and texts go with the errcodes; a message that is whole already stays as it is."""
        failure = RowFailed("odd", ErrorMessage("late", "delay"), field="line", vals=("3",))
        assert failure.messages == (ErrorMessage("odd", "line", ("3",)), ErrorMessage("late", "delay"))

    @pytest.mark.parametrize(
        ("raised", "messages"),
        [
            (RowFailed("odd", field="line", vals=("3",)), (ErrorMessage("odd", "line", ("3",)),)),
            (RowFailed(ErrorMessage("a", msgid=3), "b"), (ErrorMessage("a", msgid=3), ErrorMessage("b"))),
            (RowFailed(), ()),
        ],
    )
    def test_fails_the_row_with_these_messages(self, registry, raised, messages):
        """Raised from a processor it fails the row and is no error of the processor."""

        def fail(row):
            raise raised

        register_batch_processor("bank", "fail", fail)
        batch_id = batches.submit("bank", "fail", [1])
        drain()
        row = batches.line(batch_id, 1)
        assert (row.status, row.result, row.messages) == (Status.FAILED, None, messages)
        check_invariants()

    @pytest.mark.parametrize(
        "fail",
        [
            lambda: RowFailed("odd", vals=("a\0b",)),
            lambda: RowFailed("odd", field="\ud800"),
            lambda: RowFailed("odd", vals=({1},)),
            lambda: RowFailed(5),
            lambda: RowFailed(""),
            lambda: RowFailed({"errcode": "odd"}),
        ],
        ids=["nul", "surrogate", "set", "number", "empty", "dict"],
    )
    @pytest.mark.parametrize("kind", ["batch", "slow query"])
    def test_that_cannot_be_stored_fails_its_row_alone(self, registry, kind, fail):
        """Messages that cannot be stored are the row's fault, not the worker's: its neighbours go on."""

        def fail_first(row):
            if row.line < 2:
                raise fail()

        if kind == "batch":
            register_batch_processor("bank", "fail", fail_first)
            batch_id = batches.submit("bank", "fail", [1, 2])
            drain(raise_errors=False)
            messages = batches.line(batch_id, 1).messages
            assert batches.line(batch_id, 2).status is Status.SUCCESS
        else:
            register_slow_query_processor("bank", "fail", fail_first)
            query_id = slow_queries.submit("bank", "fail", 1)
            drain(raise_errors=False)
            messages = slow_queries.result(query_id).messages
        assert [(message.msgid, message.errcode) for message in messages] == [(10, "processing_error")]
        check_invariants()


class BaseClassTests:
    @pytest.mark.rule("REG-6")
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: BatchProcessor().do_batch_job(a_row()), "BatchProcessor does not say how to do_batch_job(row)."),
            (
                lambda: SlowQueryProcessor().do_slow_query(a_row()),
                "SlowQueryProcessor does not say how to do_slow_query(row).",
            ),
            (lambda: Initializer().init("bank"), "Initializer does not say how to init(app)."),
        ],
    )
    def test_says_what_is_missing(self, call, message):
        """A base class does nothing by itself, and says what to write."""
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == message

    def test_needs_no_more_than_one_method(self):
        """mark_done, is_alive and close are there already."""
        assert BatchProcessor().mark_done(None) is None
        assert SlowQueryProcessor().mark_done(None) is None
        assert InitBlock().is_alive() is True
        assert InitBlock().close() is None
