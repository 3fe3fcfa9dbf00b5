from __future__ import annotations

import datetime
import decimal
import itertools
import math
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from alya_django import (
    AlreadyDone,
    ErrorMessage,
    NotFound,
    QueryAnswer,
    QueryResult,
    RowFailed,
    RowResult,
    Status,
    Summary,
    WrongType,
    batches,
    outputs,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.models import Batch, BatchRow
from alya_django.status import Kind
from alya_django.testing import drain
from tests.batches.stored import refusing, stored
from tests.invariants import check_invariants
from tests.processors import RecordingQuery, broken, echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

VERBS = {"status": slow_queries.status, "result": slow_queries.result, "abort": slow_queries.abort}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()


def answer_of(processor, value: Any = 1) -> QueryAnswer:
    """Return what a processor answers to a slow query."""
    register_slow_query_processor("bank", "ask", processor)
    query_id = slow_queries.submit("bank", "ask", value)
    assert drain(raise_errors=False) == 1
    return slow_queries.result(query_id)


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in itertools.repeat(None, depth):
        value = [value]
    return value


def fail(row):
    """Fail on purpose."""
    raise RowFailed("no_data", field="day", vals=("2013-01-01",))


class IdTests:
    @pytest.mark.rule("API-1")
    @every_verb
    @pytest.mark.parametrize("query_id", ["", "17", "not-a-uuid", 17, None, b"x", ["x"]], ids=repr)
    def test_every_verb_refuses_a_malformed_id(self, verb, query_id):
        """A malformed id is invalid input, whatever the verb."""
        with refusing() as caught:
            verb(query_id)
        assert str(caught.value) == f"id: {query_id!r} is no UUID."
        assert caught.value.field == "id"

    @pytest.mark.rule("API-2")
    @every_verb
    def test_every_verb_says_that_there_is_no_such_query(self, verb):
        """An unknown id is not found, whatever the verb."""
        query_id = uuid4()
        with refusing(NotFound) as caught:
            verb(query_id)
        assert str(caught.value) == f"There is no slow query {query_id}."

    @pytest.mark.rule("API-3")
    @every_verb
    @pytest.mark.parametrize("is_cached", [False, True], ids=["cold", "cached"])
    def test_every_verb_refuses_a_batch(self, verb, is_cached, django_capture_on_commit_callbacks):
        """The id of a batch is of the wrong type, whatever the verb, cached or not."""
        batch_id = batches.submit("bank", "report", [1])
        if is_cached:
            with django_capture_on_commit_callbacks(execute=True):
                batches.abort(batch_id)
        with refusing(WrongType) as caught:
            verb(batch_id)
        assert str(caught.value) == f"{batch_id} is a batch."

    @every_verb
    def test_every_verb_takes_an_id_as_text(self, verb):
        """An id that was printed and read again works."""
        query_id = slow_queries.submit("bank", "report", 1)
        assert verb(str(query_id).upper()).status in Status


class SubmitTests:
    @pytest.mark.rule("SQS-1")
    def test_stores_a_query_and_its_row(self):
        """A query is a batch of one row, of line 0, and queued at once."""
        query_id = slow_queries.submit("Bank", "REPORT", {"a": 1}, context={"b": 2}, requested_by="eve")
        assert isinstance(query_id, UUID)
        query, row = Batch.objects.get(pk=query_id), BatchRow.objects.get(batch=query_id)
        assert (query.kind, query.app, query.op) == (Kind.SLOW_QUERY, "bank", "report")
        assert (query.status, query.nrows, query.context, query.requested_by) == (Status.QUEUED, 1, {"b": 2}, "eve")
        assert (row.line, row.status, row.input) == (0, Status.QUEUED, {"a": 1})
        check_invariants()

    @pytest.mark.rule("SQS-1")
    @pytest.mark.parametrize(
        ("given", "kept"),
        [(None, {}), ([], []), (0, 0), ("", ""), (False, False), ("\\N", "\\N"), ([1, None], [1, None])],
    )
    def test_keeps_the_input_as_it_was_given(self, given, kept):
        """Any JSON value is an input; none is an empty object."""
        query_id = slow_queries.submit("bank", "report", given)
        assert BatchRow.objects.get(batch=query_id).input == kept

    @pytest.mark.rule("SQS-1", "API-7")
    def test_is_taken_back_with_the_caller_s_transaction(self):
        """A rolled back submit leaves nothing."""

        def submit_and_fail():
            with transaction.atomic():
                slow_queries.submit("bank", "report", 1)
                raise LookupError

        before = stored()
        with pytest.raises(LookupError):
            submit_and_fail()
        assert stored() == before

    @pytest.mark.rule("SQS-1", "SUB-8")
    def test_needs_no_processor_here(self, registry):
        """The workers may be another service: the op need not be registered."""
        query_id = slow_queries.submit("bank", "nobody_here", 1)
        assert drain() == 0
        assert slow_queries.result(query_id).try_later

    @pytest.mark.rule("SQS-2")
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"delay": math.nan}, "input.delay: NaN cannot be stored as JSON."),
            ([math.inf], "input[0]: Infinity cannot be stored as JSON."),
            ("a\0b", "input: a NUL character cannot be stored as JSON."),
            ({"\ud800": 1}, "input: a lone surrogate in a key cannot be stored as JSON."),
            (
                {"amount": decimal.Decimal(1)},
                "input.amount: a Decimal (give amounts as strings) cannot be stored as JSON.",
            ),
            (b"raw", "input: a value of type bytes cannot be stored as JSON."),
            ([{1}], "input[0]: a value of type set cannot be stored as JSON."),
            (datetime.date(2013, 1, 1), "input: a value of type date cannot be stored as JSON."),
        ],
    )
    def test_refuses_an_input_that_json_cannot_hold(self, value, message):
        """The place inside the input and the fault are named; there is no line."""
        with refusing() as caught:
            slow_queries.submit("bank", "report", value)
        assert str(caught.value) == message
        assert (caught.value.field, caught.value.line) == (message.partition(":")[0], None)

    @pytest.mark.rule("SQS-2")
    @pytest.mark.parametrize(
        "make", [circular, lambda: nested(100_000), lambda: 10**5000], ids=["circular", "deep", "huge"]
    )
    def test_refuses_an_input_that_cannot_be_written_out(self, make):
        """A value that contains itself, is very deep or a number of 5000 digits stops nothing but the submit."""
        with refusing() as caught:
            slow_queries.submit("bank", "report", make())
        assert caught.value.field == "input"

    @pytest.mark.rule("SQS-2")
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"context": []}, "context: must be a JSON object, not list."),
            ({"context": {"a": {1}}}, "context.a: a value of type set cannot be stored as JSON."),
            ({"requested_by": "x" * 256}, "requested_by: has 256 characters, the limit is 255."),
            ({"requested_by": "\0"}, "requested_by: has a NUL character."),
            ({"app": None}, "app: must be a string, not NoneType."),
            ({"op": "o" * 256}, "op: has 256 characters, the limit is 255."),
            (
                {"op": "a b"},
                "op: 'a b' is no name: it takes letters a-z, digits, '_', '.' and '-', the last two not in front.",
            ),
        ],
    )
    def test_refuses_bad_names_and_texts(self, arguments, message):
        """Names, texts and the context are checked as of a batch."""
        with refusing() as caught:
            slow_queries.submit(**{"app": "bank", "op": "report", "input": 1, **arguments})
        assert str(caught.value) == message


class StatusTests:
    @pytest.mark.rule("STA-4")
    @pytest.mark.parametrize(
        ("processor", "end", "status", "counts"),
        [
            (echo, lambda query_id: None, Status.QUEUED, (0, 0, 0)),
            (echo, lambda query_id: drain(), Status.SUCCESS, (1, 0, 0)),
            (fail, lambda query_id: drain(), Status.FAILED, (0, 1, 0)),
            (echo, slow_queries.abort, Status.ABORTED, (0, 0, 1)),
        ],
        ids=["queued", "success", "failed", "aborted"],
    )
    def test_answers_in_every_state(self, registry, processor, end, status, counts):
        """The summary has the state and counts the one row, from the database and from the cache."""
        register_slow_query_processor("bank", "report", processor)
        query_id = slow_queries.submit("bank", "report", 1)
        end(query_id)
        for _ in range(2):
            summary = slow_queries.status(query_id)
            assert type(summary) is Summary
            assert (summary.status, summary.kind, summary.nrows) == (status, Kind.SLOW_QUERY, 1)
            assert (summary.nsuccess, summary.nfailed, summary.naborted) == counts
            assert summary.try_later is (not status.is_final)
            cache.clear()
        check_invariants()

    @pytest.mark.rule("STA-4")
    def test_of_a_running_query_says_so(self, registry):
        """Somebody is at it."""
        seen = []
        answer_of(lambda row: seen.append(slow_queries.status(row.batch_id)))
        assert [(summary.status, summary.nsuccess) for summary in seen] == [(Status.IN_PROGRESS, 0)]

    @pytest.mark.rule("STA-4")
    def test_reads_no_row(self):
        """The answer is not looked at, however large it is."""
        query_id = slow_queries.submit("bank", "report", 1)
        with CaptureQueriesContext(connection) as captured:
            slow_queries.status(query_id)
        assert captured
        assert not [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]

    @pytest.mark.rule("STA-4")
    def test_of_an_answered_query_needs_no_database(self, registry, django_assert_num_queries):
        """Once a query has ended, the cache tells its state, also where the answer was too large for it."""
        large = "x" * 100_001
        answer_of(lambda row: large)
        query_id = Batch.objects.get().pk
        with django_assert_num_queries(0):
            assert slow_queries.status(query_id).status is Status.SUCCESS


class ResultTests:
    @pytest.mark.rule("SQD-1")
    def test_of_a_query_that_waits_is_empty(self):
        """There is nothing yet: try later."""
        answer = slow_queries.result(slow_queries.submit("bank", "report", 1))
        assert answer == QueryAnswer(status=Status.QUEUED)
        assert (answer.try_later, answer.result, answer.messages, answer.output_files) == (True, None, (), {})

    @pytest.mark.rule("SQD-1")
    def test_of_a_running_query_is_empty(self, registry):
        """Somebody is at it: try later."""
        seen = []
        answer_of(lambda row: seen.append(slow_queries.result(row.batch_id)))
        assert seen == [QueryAnswer(status=Status.IN_PROGRESS)]

    @pytest.mark.rule("SQD-2")
    def test_has_what_the_processor_answered(self, registry):
        """A success has its result, no messages and no files unless given."""
        answer = answer_of(lambda row: QueryResult.success({"sum": row.input}), 7)
        assert answer == QueryAnswer(status=Status.SUCCESS, result={"sum": 7})
        assert not answer.try_later
        check_invariants()

    @pytest.mark.rule("SQD-2", "SQD-6")
    @pytest.mark.parametrize("value", [[1, [None]], "x", 0, False, "", -1.5, 10**1000, {}, {"a": None}], ids=repr)
    def test_has_a_result_of_any_kind(self, registry, value):
        """An array or a scalar comes back as it was."""
        answer = answer_of(echo, value)
        assert (answer.status, answer.result) == (Status.SUCCESS, value)
        check_invariants()

    @pytest.mark.rule("SQD-2")
    def test_of_a_processor_that_returns_nothing_is_an_empty_object(self, registry):
        """None is a success with nothing to say."""
        assert answer_of(lambda row: None) == QueryAnswer(status=Status.SUCCESS, result={})
        check_invariants()

    @pytest.mark.rule("SQD-2", "OUT-5")
    def test_has_the_output_files(self, registry):
        """A File is saved; the name of an object that is there already is kept."""
        earlier = outputs.storage().save("earlier.txt", ContentFile(b"earlier"))
        files = {"a/ü b.csv": ContentFile("ü;1\n".encode()), "old.txt": earlier}
        answer = answer_of(lambda row: QueryResult.success(output_files=files))
        assert set(answer.output_files) == {"a/ü b.csv", "old.txt"}
        assert answer.output_files["old.txt"] == earlier
        with outputs.storage().open(answer.output_files["a/ü b.csv"]) as file:
            assert file.read() == "ü;1\n".encode()
        check_invariants()

    @pytest.mark.rule("SQD-2")
    def test_may_name_an_object_of_1024_characters(self, registry):
        """Storages name objects with up to 1024 bytes; such a name is kept."""
        name = "folder/" + "x" * 1_017
        answer = answer_of(lambda row: QueryResult.success(output_files={"a.csv": name}))
        assert (answer.status, answer.output_files) == (Status.SUCCESS, {"a.csv": name})

    @pytest.mark.rule("SQD-3")
    @pytest.mark.parametrize(
        "output_files",
        [
            {"a\0b": "object"},
            {"a\ud800": "object"},
            {"a\0b": ContentFile(b"x")},
            {"a\ud800": ContentFile(b"x")},
            {"": "object"},
            {5: "object"},
            {"a": 5},
            {"a": "\0"},
            {"a": None},
        ],
        ids=["nul", "surrogate", "nul file", "surrogate file", "empty", "number", "no file", "object nul", "none"],
    )
    def test_of_files_that_cannot_be_named_is_a_failure(self, registry, output_files):
        """A name that cannot be stored is the processor's fault: the query fails, the worker goes on."""
        answer = answer_of(lambda row: QueryResult.success(1, output_files=output_files))
        assert (answer.status, answer.result, answer.output_files) == (Status.FAILED, None, {})
        assert [(message.msgid, message.errcode) for message in answer.messages] == [(10, "processing_error")]
        check_invariants()

    @pytest.mark.rule("SQD-3")
    def test_of_a_failure_has_the_messages(self, registry):
        """A failure has its messages, no result and no files unless given."""
        assert answer_of(fail) == QueryAnswer(
            status=Status.FAILED, messages=(ErrorMessage("no_data", "day", ("2013-01-01",)),)
        )
        check_invariants()

    @pytest.mark.rule("SQD-3")
    def test_of_a_failure_may_have_a_result_and_files(self, registry):
        """What the processor gives with its failure is kept."""
        earlier = outputs.storage().save("earlier.txt", ContentFile(b"earlier"))
        answer = answer_of(lambda row: QueryResult.failed("partly", result=[1], output_files={"a.txt": earlier}))
        assert answer == QueryAnswer(
            status=Status.FAILED,
            result=[1],
            messages=(ErrorMessage("partly"),),
            output_files={"a.txt": earlier},
        )
        check_invariants()

    @pytest.mark.rule("SQD-3")
    def test_of_a_broken_processor_has_the_engine_s_message(self, registry):
        """What the processor raised by mistake is told."""
        assert answer_of(broken).messages == (
            ErrorMessage("processing_error", vals=("ZeroDivisionError: division by zero",), msgid=10),
        )
        check_invariants()

    @pytest.mark.rule("SQD-3")
    def test_of_a_batch_s_kind_of_answer_is_a_failure(self, registry):
        """A RowResult is no answer to a slow query."""
        answer = answer_of(lambda row: RowResult.success(1))
        assert answer.status is Status.FAILED
        assert answer.messages == (
            ErrorMessage(
                "processing_error", vals=("TypeError: A slow query processor returned a RowResult.",), msgid=10
            ),
        )
        check_invariants()

    @pytest.mark.rule("SQD-4")
    def test_of_an_aborted_query_is_empty(self):
        """An aborted query has neither result nor messages nor files."""
        query_id = slow_queries.submit("bank", "report", 1)
        slow_queries.abort(query_id)
        assert slow_queries.result(query_id) == QueryAnswer(status=Status.ABORTED)
        check_invariants()

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.rule("SQD-5")
    @pytest.mark.parametrize("is_polled", [True, False], ids=["warm", "cold"])
    @pytest.mark.parametrize(("processor", "status"), [(echo, Status.SUCCESS), (fail, Status.FAILED)])
    def test_is_there_at_the_first_poll_after_the_end(self, registry, processor, status, is_polled):
        """Whether or not somebody asked before, the answer is there as soon as it exists."""
        register_slow_query_processor("bank", "report", processor)
        query_id = slow_queries.submit("bank", "report", 1)
        if is_polled:
            assert slow_queries.result(query_id).try_later
        drain()
        if not is_polled:
            cache.clear()
        first = slow_queries.result(query_id)
        cache.clear()
        assert first.status is status
        assert slow_queries.result(query_id) == first
        check_invariants()

    @pytest.mark.rule("API-6")
    def test_takes_no_locks(self, registry):
        """Asking locks no row."""
        query_id = slow_queries.submit("bank", "report", 1)
        with CaptureQueriesContext(connection) as captured:
            slow_queries.result(query_id)
        assert len(captured) > 0
        assert not [query["sql"] for query in captured if " FOR " in query["sql"].upper()]


class AbortTests:
    @pytest.mark.rule("SQA-1")
    def test_stops_a_query_that_waits(self, registry):
        """The query and its row are aborted, and the processor is not called."""
        recording = RecordingQuery()
        register_slow_query_processor("bank", "report", recording)
        query_id = slow_queries.submit("bank", "report", 1)
        summary = slow_queries.abort(query_id)
        assert (summary.status, summary.kind, summary.nrows) == (Status.ABORTED, Kind.SLOW_QUERY, 1)
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == (0, 0, 1)
        query, row = Batch.objects.get(pk=query_id), BatchRow.objects.get(batch=query_id)
        assert (query.status, row.status) == (Status.ABORTED, Status.ABORTED)
        assert query.done_at is not None
        assert row.done_at is not None
        assert drain() == 0
        assert recording.rows == []
        check_invariants()

    @pytest.mark.rule("SQA-1", "API-7")
    def test_is_taken_back_with_the_caller_s_transaction(self):
        """A rolled back abort leaves the query waiting."""
        query_id = slow_queries.submit("bank", "report", 1)

        def abort_and_fail():
            with transaction.atomic():
                slow_queries.abort(query_id)
                raise LookupError

        before = stored()
        with pytest.raises(LookupError):
            abort_and_fail()
        assert stored() == before
        assert slow_queries.result(query_id).status is Status.QUEUED

    @pytest.mark.rule("SQA-2")
    @pytest.mark.parametrize(
        ("processor", "status", "counts"), [(echo, Status.SUCCESS, (1, 0, 0)), (fail, Status.FAILED, (0, 1, 0))]
    )
    def test_tells_that_a_query_has_been_answered(self, registry, processor, status, counts):
        """An answered query is not stopped; the error carries how it ended."""
        register_slow_query_processor("bank", "report", processor)
        query_id = slow_queries.submit("bank", "report", 1)
        drain()
        with refusing(AlreadyDone) as caught:
            slow_queries.abort(query_id)
        summary = caught.value.summary
        assert str(caught.value) == f"The slow query {query_id} has ended already."
        assert (caught.value.status, summary.status) == (status, status)
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == counts
        check_invariants()

    @pytest.mark.rule("SQA-2")
    def test_tells_an_aborted_query_as_it_is(self):
        """Aborted again, it answers the same and keeps its time."""
        query_id = slow_queries.submit("bank", "report", 1)
        summary = slow_queries.abort(query_id)
        before = stored()
        assert slow_queries.abort(query_id) == summary
        assert stored() == before

    @pytest.mark.rule("SQA-3")
    def test_drops_an_answer_that_comes_late(self, registry, settings, tmp_path):
        """What the processor still answers is dropped, with the file it gave; an object it named is not its own."""
        storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path}}
        settings.STORAGES = {**settings.STORAGES, "default": storage}
        earlier = outputs.storage().save("earlier.txt", ContentFile(b"earlier"))
        files = {"late.txt": ContentFile(b"late"), "earlier.txt": earlier}

        def abort_and_answer(row):
            slow_queries.abort(row.batch_id)
            return QueryResult.success("late", output_files=files)

        register_slow_query_processor("bank", "report", abort_and_answer)
        query_id = slow_queries.submit("bank", "report", 1)
        assert drain() == 0
        assert slow_queries.result(query_id) == QueryAnswer(status=Status.ABORTED)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [earlier]
        check_invariants()

    @pytest.mark.rule("SQA-4")
    @pytest.mark.parametrize("is_cached", [True, False], ids=["warm", "cold"])
    def test_is_there_at_the_next_poll(self, is_cached, django_capture_on_commit_callbacks):
        """Right after the abort the answer is that it was aborted."""
        query_id = slow_queries.submit("bank", "report", 1)
        with django_capture_on_commit_callbacks(execute=True):
            slow_queries.abort(query_id)
        if not is_cached:
            cache.clear()
        answer = slow_queries.result(query_id)
        assert (answer.status, answer.try_later) == (Status.ABORTED, False)

    @pytest.mark.rule("ABT-8")
    def test_is_delivered_to_mark_done(self, registry):
        """The processor learns once that its query was aborted."""
        recording = RecordingQuery()
        register_slow_query_processor("bank", "report", recording)
        query_id = slow_queries.submit("bank", "report", 1, context={"a": 1})
        slow_queries.abort(query_id)
        drain()
        drain()
        (details,) = recording.done
        assert (details.id, details.kind, details.status) == (query_id, Kind.SLOW_QUERY, Status.ABORTED)
        assert details.context == {"a": 1}
        check_invariants()
