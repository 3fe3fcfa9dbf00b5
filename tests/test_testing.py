from __future__ import annotations

import pytest
from django.core.files.storage import storages
from django.test import TestCase, TransactionTestCase

from alya_django import (
    ErrorMessage,
    InvalidInput,
    NotFound,
    RetryLater,
    Row,
    RowFailed,
    RowResult,
    Status,
    batches,
    register_batch_processor,
    register_initializer,
    register_slow_query_processor,
    registry,
    slow_queries,
)
from alya_django.testing import drain, isolated_registry, isolated_storage, process_row
from tests.local_storage import files_in
from tests.processors import CountingInitializer, Recording, broken, echo


@pytest.mark.django_db
@pytest.mark.sqlite
@pytest.mark.usefixtures("registry")
class DrainTests:
    def test_raises_what_a_processor_raised_when_all_is_done(self) -> None:
        """The exception comes after the row was recorded and the batch finished."""
        register_batch_processor("app", "op", broken)
        batch_id = batches.submit("app", "op", [1, 2])
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            drain()
        assert batches.status(batch_id).nfailed == 2

    def test_leaves_the_exception_to_the_messages_when_told(self) -> None:
        """With raise_errors=False the project sees what it will see in production."""
        register_batch_processor("app", "op", broken)
        batches.submit("app", "op", [1, 2])
        assert drain(raise_errors=False) == 2

    def test_a_row_failed_on_purpose_is_no_error(self) -> None:
        """RowFailed is not raised again."""

        def refuse(row: object) -> None:
            raise RowFailed("no")

        register_batch_processor("app", "op", refuse)
        batches.submit("app", "op", [1])
        assert drain() == 1

    @pytest.mark.rule("LAT-7")
    def test_processes_rows_that_were_put_off_again_when_told(self) -> None:
        """However long they are to wait, until they have ended, also by giving up."""

        def later(row: Row) -> int:
            if row.attempt <= row.input:
                raise RetryLater(row.line % 2 * 3_600)
            return row.attempt

        register_batch_processor("app", "op", later, max_attempts=3)
        register_slow_query_processor("app", "op", later)
        batch_id, query_id = batches.submit("app", "op", [0, 1, 2, 3]), slow_queries.submit("app", "op", 1)
        other_id = batches.submit("other", "op", [1])
        with pytest.raises(RetryLater):
            drain(app="app", until_retried=True)
        assert [row.attempts for row in batches.iter_rows(batch_id)] == [1, 2, 3, 3]
        assert batches.status(batch_id).nfailed == 1
        assert slow_queries.result(query_id).result == 2
        assert batches.status(other_id).status is Status.QUEUED

    @pytest.mark.rule("LAT-7")
    def test_does_not_wait_for_what_is_no_retry(self) -> None:
        """Where the initializer fails once a row was put off, the row is left."""
        blocks = CountingInitializer()

        def later(row: Row) -> None:
            row.init_block.is_dead = True
            blocks.failures = [OSError("no more")]
            raise RetryLater

        register_initializer("app", blocks)
        register_batch_processor("app", "op", later)
        batch_id = batches.submit("app", "op", [1])
        assert drain(until_retried=True, raise_errors=False) == 0
        assert batches.status(batch_id).nput_off == 1


@pytest.mark.django_db
@pytest.mark.sqlite
@pytest.mark.usefixtures("registry")
class IsolatedStorageTests:
    def test_keeps_files_until_its_end(self) -> None:
        """They lie in its directory, and neither they nor the directory stay."""
        register_batch_processor("app", "op", lambda row: RowResult.success(output_lines={"a.txt": "x"}))
        location = storages["default"].location
        with isolated_storage() as folder:
            batch_id = batches.submit("app", "op", [1])
            drain()
            assert files_in(folder) == set(batches.status(batch_id).output_files.values())
        assert not folder.exists()
        assert storages["default"].location == location

    @isolated_storage()
    def test_is_a_decorator(self) -> None:
        """Of a whole test."""
        assert storages["default"].listdir(".") == ([], [])


@pytest.mark.sqlite
class DrainBesideTests(TransactionTestCase):
    @isolated_registry()
    def test_works_in_a_transaction_test_case(self) -> None:
        """Where the test has no transaction, everything is committed as in production."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        assert drain() == 1
        assert batches.status(batch_id).status is Status.SUCCESS


@pytest.mark.sqlite
class DrainInsideTests(TestCase):
    @isolated_registry()
    def test_works_inside_a_test_case(self) -> None:
        """The whole way of a batch fits into Django's TestCase, on its connection and in its transaction."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        assert drain() == 1
        assert batches.status(batch_id).status is Status.SUCCESS


@pytest.mark.usefixtures("registry")
class ProcessRowTests:
    def test_returns_what_would_be_stored(self) -> None:
        """The outcome of a row, without a database."""
        register_batch_processor(
            "app", "op", lambda row: RowResult.success({"n": row.input["n"] + 1}, output_lines={"a.csv": "x", "b": ""})
        )
        outcome = process_row("App", "op", {"n": 1})
        assert (outcome.line, outcome.status, outcome.result) == (1, Status.SUCCESS, {"n": 2})
        assert (outcome.messages, outcome.output_lines, outcome.attempts) == ((), {"a.csv": "x"}, 1)
        assert outcome.requested_at <= outcome.claimed_at <= outcome.done_at

    def test_gives_the_processor_its_line_context_and_block(self) -> None:
        """The row is as a worker would make it, with a block that is closed afterwards."""
        initializer, recording = CountingInitializer(), Recording()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", recording)
        process_row("app", "op", None, line=7, context={"who": "me"})
        (row,) = recording.rows
        assert (row.line, row.input, row.context, row.attempt) == (7, {}, {"who": "me"}, 1)
        assert row.init_block is initializer.blocks[0]
        assert initializer.blocks[0].closed == 1

    def test_line_0_asks_the_slow_query_processor(self) -> None:
        """One app and op may have both kinds."""
        register_batch_processor("app", "op", lambda row: "batch")
        register_slow_query_processor("app", "op", lambda row: "slow query")
        assert process_row("app", "op", {}).result == "batch"
        assert process_row("app", "op", {}, line=0).result == "slow query"

    def test_a_row_failed_on_purpose_is_an_outcome(self) -> None:
        """RowFailed is what the test wants to look at."""

        def refuse(row: object) -> None:
            raise RowFailed("no", field="n")

        register_batch_processor("app", "op", refuse)
        outcome = process_row("app", "op", {})
        assert (outcome.status, outcome.messages) == (Status.FAILED, (ErrorMessage("no", "n"),))

    def test_an_exception_is_raised_unless_told_otherwise(self) -> None:
        """A bug shows in the test with its traceback, or as the failure that it makes of the row."""
        register_batch_processor("app", "op", broken)
        with pytest.raises(ZeroDivisionError):
            process_row("app", "op", {})
        outcome = process_row("app", "op", {}, raise_errors=False)
        assert outcome.messages[0].msgid == 10

    def test_an_initializer_that_fails_raises_its_own_error(self) -> None:
        """Nothing of the engine is between the test and the fault."""
        register_initializer("app", CountingInitializer(OSError("down")))
        register_batch_processor("app", "op", echo)
        with pytest.raises(OSError, match="down"):
            process_row("app", "op", {})

    def test_names_what_is_not_registered(self) -> None:
        """The kind, the app and the op."""
        with pytest.raises(NotFound, match=r"There is no batch processor for app 'app' and op 'op'\."):
            process_row("app", "op", {})

    def test_refuses_an_input_that_could_not_be_submitted(self) -> None:
        """A test cannot pass on what a batch could never hold."""
        register_batch_processor("app", "op", echo)
        with pytest.raises(InvalidInput, match="line 1: input: NaN"):
            process_row("app", "op", float("nan"))


class IsolatedRegistryTests:
    def test_is_empty_inside_and_as_before_afterwards(self) -> None:
        """What is registered inside is gone outside, and the reverse."""
        before = list(registry)
        with isolated_registry():
            assert list(registry) == []
            register_batch_processor("app", "op", echo)
            assert ("app", "op") in registry
        assert list(registry) == before
        assert ("app", "op") not in registry
