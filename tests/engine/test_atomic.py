"""Rows processed in the transaction that records them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models.functions import Now

from alya_django import (
    QueryResult,
    RetryLater,
    Row,
    RowFailed,
    RowResult,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.engine import atomic as atomic_module
from alya_django.engine.atomic import Atomic
from alya_django.engine.deliver import Deliverer
from alya_django.engine.finish import Finisher
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.pace import Pace
from alya_django.engine.process import Processing
from alya_django.engine.worker import Worker
from alya_django.models import BatchRow, database
from alya_django.testing import drain
from example_project.bank.models import Account, Entry
from tests.concurrency.connections import elsewhere
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


def open_account(row: Row) -> None:
    """Open an account, and then do what the input says."""
    Account.objects.create(number=str(row.line), holder="")
    match row.input:
        case "fail":
            raise RowFailed("refused")
        case "return failed":
            return RowResult.failed("refused")
        case "file":
            return QueryResult.success(output_files={"a.txt": ContentFile(b"a")})
        case "raise":
            raise ZeroDivisionError("division by zero")
        case "later" if row.attempt == 1:
            raise RetryLater(0)
        case "nobody's entry":
            Entry.objects.create(account_id=-1, counterpart_id=-1, cents=1, reference=row.key)
        case "swallow":
            swallow_an_error()
    return None


def swallow_an_error() -> None:
    """Go on after a statement that failed, which the database does not let anybody do."""
    with suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")


def run(*inputs, **options) -> dict[int, tuple[Status, list[str]]]:
    """Work off rows of an atomic op; return how each ended, and with which words."""
    register_batch_processor("bank", "open", open_account, atomic=True, **options)
    batch_id = batches.submit("bank", "open", inputs)
    drain(raise_errors=False)
    # SQLite's clock may not see at once that the time of a row put off has come.
    if BatchRow.objects.filter(status=Status.QUEUED).update(retry_at=Now() - timedelta(seconds=1)):
        drain(raise_errors=False)
    check_invariants()
    return {
        row.line: (row.status, [message.errcode + "".join(message.vals) for message in row.messages])
        for row in batches.iter_rows(batch_id)
    }


def accounts() -> list[str]:
    return sorted(Account.objects.values_list("number", flat=True), key=int)


@pytest.fixture
def objection() -> Iterator[None]:
    """A trigger that lets no row of line 2, and no slow query, succeed: it says so at the commit, the very last."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.line IN (0, 2) AND NEW.status = 'success' THEN RAISE 'no success for %', NEW.line; END IF; "
            "RETURN NULL; END $$; "
            "CREATE CONSTRAINT TRIGGER object AFTER UPDATE ON alya_batchrows DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION object()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER object ON alya_batchrows; DROP FUNCTION object()")


@pytest.mark.sqlite
class AtomicTests:
    @pytest.mark.rule("ATM-2")
    def test_commits_what_rows_do_with_what_becomes_of_them(self) -> None:
        """All succeed: all they wrote is there."""
        assert run(*["go"] * 120) == {line: (Status.SUCCESS, []) for line in range(1, 121)}
        assert accounts() == [str(line) for line in range(1, 121)]

    @pytest.mark.rule("ATM-3")
    @pytest.mark.parametrize(
        ("how", "words"),
        [
            ("fail", ["refused"]),
            ("return failed", ["refused"]),
            ("raise", ["processing_errorZeroDivisionError: division by zero"]),
        ],
    )
    def test_a_row_that_fails_leaves_nothing_but_its_messages(self, how, words) -> None:
        """However it fails, what it wrote is undone, and its neighbours' work stays."""
        ended = run("go", how, "go", how, "go")
        assert [ended[line] for line in (2, 4)] == [(Status.FAILED, words)] * 2
        assert [ended[line][0] for line in (1, 3, 5)] == [Status.SUCCESS] * 3
        assert accounts() == ["1", "3", "5"]

    @pytest.mark.rule("ATM-3")
    @pytest.mark.parametrize("how", ["nobody's entry"])
    def test_a_fault_that_only_the_commit_would_show_is_the_rows(self, how) -> None:
        """A deferred foreign key is checked before the next row, so the row at fault is known."""
        ended = run("go", how, "go")
        assert [ended[line][0] for line in (1, 2, 3)] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS]
        assert ended[2][1][0].startswith("processing_errorIntegrityError: ")
        assert accounts() == ["1", "3"]

    @pytest.mark.rule("ATM-3")
    def test_a_row_put_off_leaves_nothing_until_it_comes_again(self) -> None:
        """The second attempt is the one that stays."""
        assert {status for status, _ in run("go", "later", "go").values()} == {Status.SUCCESS}
        assert accounts() == ["1", "2", "3"]
        assert BatchRow.objects.get(line=2).retries == 1

    @pytest.mark.rule("ATM-2")
    def test_what_was_done_for_a_row_that_is_not_held_any_more_is_undone(self, make_claimer, make_recorder) -> None:
        """What was given to somebody else between the claim and the transaction is left out, and the others stay."""
        register_batch_processor("bank", "open", open_account, atomic=True)
        batch_id = batches.submit("bank", "open", ["go"] * 3)
        chunk = make_claimer(1).take()
        BatchRow.objects.filter(line=2).update(status=Status.QUEUED, claim=None)
        processing = Processing(chunk, set())
        work = Atomic(database(), make_recorder(1), Pace())
        pieces = list(work.pieces(chunk, lambda row: processing.run(row, open_account, None), lambda: True))
        assert [len(piece.done) for piece in pieces] == [2]
        assert accounts() == ["1", "3"]
        assert batches.line(batch_id, 2).status == Status.QUEUED

    def test_commits_after_flush_seconds(self, settings) -> None:
        """Slow rows are not kept from others until the end of the chunk."""
        settings.ALYA = {"FLUSH_SECONDS": 0}
        commits = []
        register_batch_processor(
            "bank", "count", lambda row: transaction.on_commit(lambda: commits.append(row.line)), atomic=True
        )
        batches.submit("bank", "count", range(3))
        drain()
        assert commits == [1, 2, 3]

    @pytest.mark.rule("ATM-4")
    def test_answers_a_slow_query_in_one_transaction(self) -> None:
        """What it wrote stays if it succeeds, and only then."""

        @register_slow_query_processor("bank", "open", atomic=True)
        def answer(row: Row):
            Account.objects.create(number=str(row.input), holder="")
            return QueryResult.success({"n": row.input}) if row.input == 1 else QueryResult.failed("refused")

        one, two = (slow_queries.submit("bank", "open", number) for number in (1, 2))
        drain()
        check_invariants()
        assert slow_queries.result(one).result == {"n": 1}
        assert slow_queries.result(two).status == Status.FAILED
        assert accounts() == ["1"]


class AtomicPostgreSQLTests:
    @pytest.mark.rule("ATM-3")
    def test_a_row_that_swallows_an_error_of_the_database_fails_alone(self) -> None:
        """Its transaction cannot go on: nothing of it stays, and its neighbours do not pay for it."""
        ended = run("go", "swallow", "go")
        assert [ended[line][0] for line in (1, 2, 3)] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS]
        assert accounts() == ["1", "3"]

    @pytest.mark.rule("ATM-3")
    @pytest.mark.usefixtures("objection")
    def test_a_row_that_only_its_commit_shows_to_be_wrong_fails_alone(self) -> None:
        """It is found out by giving each row a transaction of its own."""
        ended = run("go", "go", "go")
        assert [ended[line][0] for line in (1, 2, 3)] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS]
        assert ended[2][1][0].startswith("processing_errorProgrammingError: no success for 2")
        assert accounts() == ["1", "3"]

    @pytest.mark.rule("ATM-4")
    def test_a_slow_query_that_spoils_its_transaction_fails(self) -> None:
        """Nothing of it stays."""
        register_slow_query_processor("bank", "open", open_account, atomic=True)
        query_id = slow_queries.submit("bank", "open", "swallow")
        drain(raise_errors=False)
        check_invariants()
        assert slow_queries.result(query_id).status == Status.FAILED
        assert accounts() == []

    @pytest.mark.rule("ATM-4")
    @pytest.mark.usefixtures("objection")
    def test_a_slow_query_that_only_its_commit_shows_to_be_wrong_fails(self) -> None:
        """It is recorded in a transaction of its own."""
        register_slow_query_processor("bank", "open", open_account, atomic=True)
        query_id = slow_queries.submit("bank", "open", "file")
        drain(raise_errors=False)
        check_invariants()
        assert slow_queries.result(query_id).messages[0].vals[0].startswith("ProgrammingError: no success for 0")
        assert not default_storage.exists(f"alya/{query_id}") or default_storage.listdir(f"alya/{query_id}")[0] == []

    @pytest.mark.rule("ATM-5")
    def test_no_row_fails_for_a_deadlock(self, settings) -> None:
        """Two workers lock the same accounts in opposite orders: all rows succeed, each with one effect."""
        for number in ("1", "2"):
            Account.objects.create(number=number, holder="", kind="bank")
        settings.ALYA = {"CHUNK_SECONDS": 60}
        calls = Counter()
        met = threading.Barrier(2)

        @register_batch_processor("bank", "book", atomic=True, chunk_rows=4)
        def book(row: Row) -> None:
            calls[row.batch_id, row.line] += 1
            for number in row.input:
                account = Account.objects.select_for_update().get(number=number)
                if calls[row.batch_id, row.line] == 1 and row.line == 1 and number == row.input[0]:
                    met.wait(20)
                Account.objects.filter(pk=account.pk).update(cents=account.cents + 1)

        batch_ids = [batches.submit("bank", "book", [order] * 4) for order in (["1", "2"], ["2", "1"])]
        done = [elsewhere(drain) for _ in batch_ids]
        assert sum(rows.result(60) for rows in done) == 8
        check_invariants()
        for batch_id in batch_ids:
            assert batches.status(batch_id).nsuccess == 4
        assert max(calls.values()) > 1
        assert list(Account.objects.order_by("number").values_list("cents", flat=True)) == [8, 8]

    @pytest.mark.rule("ATM-5")
    @pytest.mark.parametrize(("rows", "of_project", "expected"), [(2, "0", "100ms"), (1, "0", "0"), (2, "7s", "7s")])
    def test_does_not_wait_long_where_it_was_refused(
        self, make_claimer, make_recorder, registry, rows, of_project, expected
    ) -> None:
        """Rows that share a transaction wait 100 ms for a lock, or as long as the project says; a row alone waits."""
        seen = []

        @register_batch_processor("bank", "look", atomic=True)
        def look(row: Row) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SHOW lock_timeout")
                seen.extend(cursor.fetchone())

        batches.submit("bank", "look", range(rows))
        pace = Pace()
        pace.refused(next(iter(registry)))
        chunk = make_claimer(1).take()
        processing = Processing(chunk, set())
        with connection.cursor() as cursor:
            cursor.execute("SELECT SET_CONFIG('lock_timeout', %s, FALSE)", [of_project])
            try:
                work = Atomic(database(), make_recorder(1), pace)
                list(work.pieces(chunk, lambda row: processing.run(row, look, None), lambda: True))
            finally:
                cursor.execute("SET lock_timeout = 0")
        assert seen == [expected] * rows

    @pytest.mark.rule("ATM-5")
    def test_a_database_that_is_away_ends_the_round(self, make_claimer, make_recorder) -> None:
        """What was done is gone with the connection: the loop waits for another."""
        register_batch_processor("bank", "open", open_account, atomic=True)
        batches.submit("bank", "open", ["go"])
        register_slow_query_processor("bank", "open", open_account, atomic=True)
        slow_queries.submit("bank", "open", "go")

        def lose(row: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        claimer, recorder = make_claimer(1), make_recorder(1)
        work = Atomic(database(), recorder, Pace())
        for act in (
            lambda chunk: work.answer(
                chunk, lose, Finisher(database(), recorder, Deliverer(database(), InitBlocks()))
            ),
            lambda chunk: list(work.pieces(chunk, lose, lambda: True)),
        ):
            with pytest.raises(OperationalError, match="terminating connection"):
                act(claimer.take())
            recorder.requeue_all()
        check_invariants()
        assert accounts() == []

    @pytest.mark.rule("ATM-5")
    def test_a_database_that_refuses_for_ever_ends_the_round(self, monkeypatch) -> None:
        """The rows are given back and blamed for nothing."""
        monkeypatch.setattr(atomic_module, "REFUSAL_SECONDS", 0)
        Account.objects.create(number="1", holder="")

        @register_batch_processor("bank", "book", atomic=True)
        def book(row: Row) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1ms'")
            try:
                Account.objects.select_for_update().get(number="1")
            except OperationalError as error:
                raise LookupError("no account") from error

        register_slow_query_processor("bank", "book", book, atomic=True)
        batch_id = batches.submit("bank", "book", [1])
        locked, may_end = threading.Event(), threading.Event()

        def hold() -> None:
            with transaction.atomic():
                Account.objects.select_for_update().get(number="1")
                locked.set()
                assert may_end.wait(20)

        holding = elsewhere(hold)
        assert locked.wait(20)
        try:
            for submit in (lambda: None, lambda: slow_queries.submit("bank", "book", 1)):
                submit()
                with pytest.raises(OperationalError, match="lock timeout"), Worker() as worker:
                    worker.drain()
        finally:
            may_end.set()
            holding.result(20)
        check_invariants()
        row = batches.line(batch_id, 1)
        assert (row.status, BatchRow.objects.get(batch=batch_id).lost) == (Status.QUEUED, 0)
        drain()
        assert batches.line(batch_id, 1).status == Status.SUCCESS
