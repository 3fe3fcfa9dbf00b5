from __future__ import annotations

import io
import signal
import weakref

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage

from alya_django import (
    BatchProcessor,
    ErrorMessage,
    QueryResult,
    Row,
    RowFailed,
    RowResult,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.engine import process
from alya_django.models import Batch
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import broken, echo, fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


def run(processor, *inputs):
    """Send inputs through a processor and return how each row ended."""
    register_batch_processor("app", "op", processor)
    batch_id = batches.submit("app", "op", inputs or [{}])
    drain(raise_errors=False)
    check_invariants()
    return list(batches.iter_rows(batch_id))


def ask(processor, query_input=None):
    """Send a slow query through a processor and return the answer."""
    register_slow_query_processor("app", "op", processor)
    query_id = slow_queries.submit("app", "op", query_input)
    drain(raise_errors=False)
    check_invariants()
    return slow_queries.result(query_id)


@pytest.fixture
def handled_ctrl_c():
    """Let Ctrl-C have a handler, as in a worker command."""
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    yield
    signal.signal(signal.SIGINT, before)


class TimeLimitTests:
    @pytest.mark.parametrize("fails", [False, True])
    def test_shows_when_a_row_with_a_limit_begins_and_ends(self, make_claimer, fails) -> None:
        """Whoever watches sees the row, its slot and its limit, and that it has ended, however it did."""
        seen = []

        class Watch:
            def begin(self, slot, row_id, limit):
                seen.append((slot, row_id, limit))

            def end(self, slot):
                seen.append(slot)

        register_batch_processor("app", "op", broken if fails else echo, time_limit=3)
        batches.submit("app", "op", [1])
        chunk = make_claimer(1).take()
        list(process.process(process.Processing(chunk, set(), Watch()), None))
        assert seen == [(0, chunk.rows[0].id, 3), 0]


class ProcessTests:
    @pytest.mark.rule("INV-6")
    def test_nothing_is_a_success_without_a_result(self) -> None:
        """A processor that returns None succeeded, and ``{}`` is stored."""
        (row,) = run(lambda row: None)
        assert (row.status, row.result, row.messages) == (Status.SUCCESS, {}, ())

    @pytest.mark.parametrize("value", [0, "", [], False, [1, {"a": None}], "text", 1.5, 10**30])
    def test_json_is_a_success_with_that_result(self, value) -> None:
        """Whatever JSON a processor returns is the result, falsy or not."""
        (row,) = run(lambda row: value)
        assert (row.status, row.result) == (Status.SUCCESS, value)

    def test_a_failure_keeps_its_messages_and_result(self) -> None:
        """A returned failure stores its messages, in order, and its result."""
        message = ErrorMessage("limit", "amount", ("100", "EUR"), msgid=7)
        (row,) = run(lambda row: RowResult.failed(message, "other", result={"left": 3}))
        assert (row.status, row.result) == (Status.FAILED, {"left": 3})
        assert row.messages == (message, ErrorMessage("other"))

    def test_a_failure_without_a_result_has_none(self) -> None:
        """A failed row without a result has None, not ``{}``."""
        (row,) = run(lambda row: RowResult.failed("no"))
        assert row.result is None

    def test_row_failed_fails_the_row_on_purpose(self) -> None:
        """RowFailed makes its messages of errcodes, field and vals."""
        odd, even = run(fail_odd, 1, 2)
        assert odd.status is Status.FAILED
        assert odd.messages == (ErrorMessage("odd", "line", ("1",)),)
        assert even.status is Status.SUCCESS

    @pytest.mark.rule("ERR-1", "ERR-3")
    def test_an_exception_fails_its_row_alone(self) -> None:
        """What a processor raises becomes one message of that row; the others go on in their order."""

        def fail_second(row: Row) -> int:
            return 1 // (row.input - 2)

        rows = run(fail_second, 1, 2, 3)
        assert [row.status for row in rows] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS]
        assert rows[1].messages == (
            ErrorMessage(
                "processing_error", vals=("ZeroDivisionError: integer division or modulo by zero",), msgid=10
            ),
        )
        assert rows[1].result is None

    def test_the_text_of_an_exception_is_stored_whatever_it_holds(self) -> None:
        """NUL characters, lone surrogates and great length do no harm."""

        def fail(row: Row) -> None:
            raise ValueError("\0 \ud800 " + "x" * 10_000)

        (row,) = run(fail)
        (text,) = row.messages[0].vals
        assert text.startswith("ValueError: \\0 \\ud800 xxx")
        assert len(text) == process.MESSAGE_CHARS_MAX

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (
                RowResult(Status.QUEUED),
                "ValueError: A processor returned the status Status.QUEUED, not success or failed.",
            ),
            (
                RowResult(Status.WAIT),
                "ValueError: A processor returned the status Status.WAIT, not success or failed.",
            ),
            (RowResult("done"), "ValueError: A processor returned the status 'done', not success or failed."),
            (QueryResult.success(), "TypeError: A batch processor returned a QueryResult."),
            ({"amount": float("nan")}, "InvalidInput: result.amount: NaN cannot be stored as JSON."),
            (b"bytes", "InvalidInput: result: a value of type bytes cannot be stored as JSON."),
            ({"a": "\0"}, "InvalidInput: result.a: a NUL character cannot be stored as JSON."),
            (RowResult.success(output_lines={"a": 1}), "TypeError: output_lines['a'] is a int, not a string."),
            (
                RowResult.success(output_lines={"": "x"}),
                "TypeError: '' is no name of an output file: it must be a string and not empty.",
            ),
            (
                RowResult.success(output_lines={"a": "\0"}),
                "InvalidInput: output_lines.a: a NUL character cannot be stored as JSON.",
            ),
        ],
    )
    def test_an_answer_that_cannot_be_stored_fails_the_row(self, answer, text) -> None:
        """A wrong status, type, result or output line is named in the row's message."""
        (row,) = run(lambda row: answer)
        assert row.status is Status.FAILED
        assert row.messages == (ErrorMessage("processing_error", vals=(text,), msgid=10),)

    @pytest.mark.rule("ERR-3")
    @pytest.mark.parametrize(
        ("messages", "text"),
        [
            (("no", "a\0b"), "InvalidInput: messages[1].errcode: a NUL character cannot be stored as JSON."),
            ((42,), "TypeError: ErrorMessage(errcode=42, field='', vals=(), msgid=0): "),
            (("",), "TypeError: ErrorMessage(errcode='', field='', vals=(), msgid=0): "),
        ],
    )
    def test_messages_that_cannot_be_stored_fail_their_row_alone(self, messages, text) -> None:
        """RowFailed with something else than words is an exception like any other."""

        def refuse(row: Row) -> None:
            if row.input == 1:
                raise RowFailed(*messages)

        first, second = run(refuse, 1, 2)
        assert first.messages[0].vals[0].startswith(text)
        assert second.status is Status.SUCCESS

    @pytest.mark.rule("ERR-3")
    def test_an_exception_that_cannot_be_described_fails_its_row_alone(self) -> None:
        """An exception whose text raises is known by its type."""

        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def fail(row: Row) -> None:
            raise Unspeakable

        (row,) = run(fail)
        assert row.messages[0].vals == ("Unspeakable: ",)

    def test_more_output_files_than_allowed_fail_the_row(self, settings) -> None:
        """The row that would open one file too many fails; rows that write to known files go on."""
        settings.ALYA = {"OUTPUT_FILES_MAX": 2}
        rows = run(lambda row: RowResult.success(output_lines={row.input: "x"}), "a", "b", "c", "a")
        assert [row.status for row in rows] == [Status.SUCCESS, Status.SUCCESS, Status.FAILED, Status.SUCCESS]
        assert rows[2].messages[0].vals == ("ValueError: The batch would have more than 2 output files.",)

    def test_the_names_of_many_batches_are_not_remembered_for_ever(self, monkeypatch) -> None:
        """Beyond so many batches a worker forgets the names of their files, and goes on."""
        monkeypatch.setattr("alya_django.engine.chunk.BATCHES_REMEMBERED", 2)
        register_batch_processor("app", "op", lambda row: RowResult.success(output_lines={"a": "x"}), chunk_rows=1)
        ids = [batches.submit("app", "op", range(3)) for _ in range(4)]
        drain()
        assert {batches.status(batch_id).status for batch_id in ids} == {Status.SUCCESS}

    def test_a_coroutine_function_is_awaited(self) -> None:
        """A processor may be ``async def``."""

        class Waiting(BatchProcessor):
            async def do_batch_job(self, row: Row) -> int:
                return row.input + 1

        (row,) = run(Waiting, 1)
        assert row.result == 2

    def test_a_failing_statement_in_a_test_case_leaves_the_transaction_usable(self) -> None:
        """Inside a TestCase, what a processor's broken SQL does to its row is all that it does."""
        from django.db import connection

        def select_nothing(row: Row) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM no_such_table")

        (row,) = run(select_nothing)
        assert row.status is Status.FAILED

    @pytest.mark.rule("ERR-6")
    def test_ctrl_c_ends_a_drain(self) -> None:
        """Where nobody handles the signal it is a person's: what was done is recorded, the row is given back."""

        def interrupt_second(row: Row) -> None:
            if row.line == 2:
                raise KeyboardInterrupt

        register_batch_processor("app", "op", interrupt_second)
        batch_id = batches.submit("app", "op", range(3))
        with pytest.raises(KeyboardInterrupt):
            drain(raise_errors=False)
        statuses = [row.status for row in batches.iter_rows(batch_id)]
        assert statuses == [Status.SUCCESS, Status.QUEUED, Status.QUEUED]
        check_invariants()

    @pytest.mark.rule("ERR-6")
    def test_an_interrupt_is_the_rows_where_the_signal_is_handled(self, handled_ctrl_c) -> None:
        """A command handles Ctrl-C itself, so what the row raises is its own."""

        def interrupt(row: Row) -> None:
            raise KeyboardInterrupt

        (row,) = run(interrupt)
        assert row.messages == (ErrorMessage("processing_error", vals=("KeyboardInterrupt: ",), msgid=10),)

    @pytest.mark.rule("ERR-6")
    @pytest.mark.parametrize("error", [MemoryError, ValueError])
    def test_what_a_failed_row_had_in_hand_is_let_go(self, error) -> None:
        """At once where memory has run out; else that of the first is kept, for whoever looks into it."""

        class Large:
            pass

        alive = []

        def take_much(row: Row) -> None:
            alive.append(sum(one() is not None for one in taken))
            much = Large()
            taken.append(weakref.ref(much))
            raise error

        taken: list[weakref.ref[Large]] = []
        run(take_much, 1, 2, 3)
        assert alive == ([0, 0, 0] if error is MemoryError else [0, 1, 1])

    @pytest.mark.rule("ERR-7")
    @pytest.mark.parametrize(
        ("answer", "returned"),
        [
            (Status.FAILED, "Status.FAILED"),
            (Status.SUCCESS, "Status.SUCCESS"),
            ((Status.SUCCESS, {}, [], {}), "a tuple that begins with Status.SUCCESS"),
        ],
    )
    @pytest.mark.parametrize("runs", ["batch", "slow query"])
    def test_a_status_is_no_answer(self, runs, answer, returned) -> None:
        """It would be a success, whatever it says; the text says what to return."""
        found = run(lambda row: answer)[0] if runs == "batch" else ask(lambda row: answer)
        wanted = "RowResult" if runs == "batch" else "QueryResult"
        assert (found.status, found.messages[0].msgid) == (Status.FAILED, 10)
        assert returned in found.messages[0].vals[0]
        assert f"{wanted}.failed(" in found.messages[0].vals[0]

    @pytest.mark.rule("ERR-7")
    @pytest.mark.parametrize("answer", ["failed", ["failed", {}], {"status": Status.FAILED}])
    def test_a_text_is_an_answer_whatever_it_says(self, answer) -> None:
        """Only what is meant as a status is refused."""
        (row,) = run(lambda row: answer)
        assert (row.status, row.result) == (Status.SUCCESS, answer)


class AbortedTests:
    def test_a_row_learns_that_its_batch_was_aborted(self) -> None:
        """``row.aborted()`` is true once the batch is."""
        answers = []

        def abort_myself(row: Row) -> None:
            batches.abort(row.batch_id)
            answers.append(row.aborted())

        run(abort_myself)
        assert answers == [True]

    def test_asks_at_most_once_a_second(self, django_assert_num_queries) -> None:
        """Asking again at once costs no statement."""

        def ask_often(row: Row) -> None:
            with django_assert_num_queries(1):
                for _ in range(100):
                    assert not row.aborted()

        (row,) = run(ask_often)
        assert row.status is Status.SUCCESS


class SlowQueryTests:
    def test_answers_with_files_to_be_saved_and_stored_ones(self) -> None:
        """A File is saved under the query's folder; a name of an object is kept as it is."""
        answer = ask(
            lambda row: QueryResult.success(
                {"rows": 2}, output_files={"report.csv": ContentFile(b"1\n2\n"), "old.csv": "somewhere/old.csv"}
            )
        )
        assert (answer.status, answer.result) == (Status.SUCCESS, {"rows": 2})
        assert answer.output_files["old.csv"] == "somewhere/old.csv"
        with default_storage.open(answer.output_files["report.csv"]) as file:
            assert file.read() == b"1\n2\n"

    def test_an_exception_fails_the_query(self) -> None:
        """A slow query that raises is failed with the text of the exception."""
        answer = ask(broken)
        assert answer.status is Status.FAILED
        assert answer.messages == (
            ErrorMessage("processing_error", vals=("ZeroDivisionError: division by zero",), msgid=10),
        )

    @pytest.mark.parametrize(
        ("returned", "text"),
        [
            (RowResult.success(), "TypeError: A slow query processor returned a RowResult."),
            (
                QueryResult.success(output_files={"a": 1}),
                "TypeError: output_files['a'] is a int, neither a File nor an object's name.",
            ),
        ],
    )
    def test_an_answer_of_the_wrong_form_fails_the_query(self, returned, text) -> None:
        """What is no QueryResult and no JSON is named in the message."""
        assert ask(lambda row: returned).messages[0].vals == (text,)

    @pytest.mark.parametrize("name", ["a\0b", "\ud800"])
    def test_a_file_name_that_cannot_be_stored_fails_the_query(self, name) -> None:
        """A logical name is checked before anything is saved."""
        answer = ask(lambda row: QueryResult.success(output_files={"ok": ContentFile(b"x"), name: ContentFile(b"x")}))
        assert answer.status is Status.FAILED
        assert "cannot be stored as JSON" in answer.messages[0].vals[0]

    def test_a_file_that_cannot_be_read_fails_the_query(self) -> None:
        """A closed file is the answer's fault; what was saved before it is taken back."""
        closed = File(io.BytesIO(b"x"))
        closed.close()
        answer = ask(lambda row: QueryResult.success({}, output_files={"a": ContentFile(b"x"), "b": closed}))
        assert (answer.status, answer.output_files) == (Status.FAILED, {})
        assert answer.messages[0].vals[0].startswith("Unreadable: None cannot be read: ValueError: ")
        (query,) = Batch.objects.all()
        assert default_storage.listdir(f"alya/{query.pk}") == ([], [])

    @pytest.mark.rule("ERR-6")
    @pytest.mark.parametrize("error", [OSError, LookupError, SystemExit])
    def test_a_file_whose_disk_is_gone_fails_the_query(self, error) -> None:
        """What the processor gave cannot be read: that is no outage of the storage, and to wait would not help."""

        class Gone(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise error("the disk is gone")

        answer = ask(lambda row: QueryResult.success({}, output_files={"a": File(Gone(), name="a.csv")}))
        assert answer.status is Status.FAILED
        assert answer.messages[0].vals == (f"Unreadable: a.csv cannot be read: {error.__name__}: the disk is gone",)

    def test_row_failed_fails_the_query_on_purpose(self) -> None:
        """RowFailed serves slow queries too."""

        def refuse(row: Row) -> None:
            raise RowFailed("no_access", field="account")

        assert ask(refuse).messages == (ErrorMessage("no_access", "account"),)

    def test_a_query_gets_its_row(self) -> None:
        """The row of a slow query is line 0."""
        assert ask(lambda row: [row.line, row.input, row.attempt], {"a": 1}).result == [0, {"a": 1}, 1]
