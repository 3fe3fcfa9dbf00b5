from __future__ import annotations

import pytest
from django.db import OperationalError, connection
from psycopg.errors import DeadlockDetected

from alya_django import BatchInput, batches, register_batch_processor
from alya_django.db import PostgreSQL
from alya_django.intake import read_csv
from alya_django.models import Batch, BatchFile, BatchRow
from alya_django.testing import drain
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.intake.files import CONTENT, faulty_lines, read, receive, register
from tests.invariants import check_invariants
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture(autouse=True)
def storage(settings, tmp_path):
    """An empty storage for this test."""
    backend = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path}}
    settings.STORAGES = {**settings.STORAGES, "default": backend}


class SameFileTests:
    @pytest.mark.rule("FXR-6")
    def test_of_the_same_content_at_the_same_time_one_is_accepted(self) -> None:
        """The second waits for the first, and is then a duplicate."""
        register()
        with open_transaction(receive) as first:
            second = elsewhere(lambda: receive(file_name="TXN 2.csv"))
            wait_until(somebody_waits_for_a_lock, "the second waits")
        assert first.accepted
        assert second.result(DEADLINE_SECONDS).reason.startswith("The same content was accepted before: TXN 1.csv")
        assert Batch.objects.count() == 1
        check_invariants()

    @pytest.mark.rule("FXR-5", "INF-4")
    def test_two_files_of_one_name_at_the_same_time_are_two(self) -> None:
        """Neither waits for the other, and each keeps the bytes that came."""
        register()
        other = b"debtor,amount\nother,1\n"
        with open_transaction(receive) as first:
            second = elsewhere(lambda: receive(other)).result(DEADLINE_SECONDS)
        assert (read(first.object_id), read(second.object_id)) == (CONTENT, other)
        assert (first.nrows, second.nrows, Batch.objects.count()) == (2, 1, 2)
        check_invariants()

    @pytest.mark.rule("FXR-18")
    def test_two_calls_with_one_key_are_one(self) -> None:
        """The second waits for the first, and tells of it."""
        register()
        with open_transaction(lambda: receive(unique_key="a")) as first:
            second = elsewhere(lambda: receive(b"debtor,amount\nother,1\n", unique_key="a"))
            wait_until(somebody_waits_for_a_lock, "the second waits")
        assert second.result(DEADLINE_SECONDS) == first
        assert (Batch.objects.count(), BatchFile.objects.count()) == (1, 1)

    @pytest.mark.rule("FXR-16")
    def test_of_the_same_business_key_at_the_same_time_one_becomes_a_row(self) -> None:
        """The second file waits for the first where they meet, and finds its line a duplicate."""
        register(lambda file, *others: read_csv(file), unique_by="debtor")
        with open_transaction(receive) as first:
            second = elsewhere(lambda: receive(CONTENT + b"dan,4.00\n"))
            wait_until(somebody_waits_for_a_lock, "the second waits")
        receipt = second.result(DEADLINE_SECONDS)
        assert (first.nrows, receipt.nrows, receipt.nfaulty) == (3, 1, 3)
        assert faulty_lines(receipt)[0] == f"2,has the same debtor as line 2 of batch {first.batch_id}"


class ReturnedFileTests:
    @pytest.mark.rule("FXR-27")
    def test_of_a_file_and_a_retry_at_the_same_time_one_has_the_line(self) -> None:
        """The file waits for the retry, and finds its line taken."""
        register(lambda file, *others: read_csv(file))
        register_batch_processor("bank", "transfer", fail_odd)
        parent = receive(b"debtor,amount\nann,1\nbob,2\n").batch_id
        drain()
        with open_transaction(lambda: batches.retry(parent)) as child:
            second = elsewhere(lambda: receive(b"debtor,amount,alya_line\nbob,3,3\n", parent=parent))
            wait_until(somebody_waits_for_a_lock, "the file waits")
        receipt = second.result(DEADLINE_SECONDS)
        assert (receipt.accepted, receipt.reason) == (False, "The file has no usable line.")
        assert batches.children(parent) == [child]
        check_invariants()


class DeadlockTests:
    @pytest.mark.rule("API-8")
    def test_is_decided_on_once_more(self, monkeypatch) -> None:
        """The stored object is read again, and there is one batch."""
        register(lambda file, *others: read_csv(file), unique_by="debtor")
        calls: list[None] = []
        take_keys = PostgreSQL.take_keys

        def take_second(*arguments, **keywords):
            calls.append(None)
            if len(calls) == 1:
                raise OperationalError("refused") from DeadlockDetected()
            return take_keys(*arguments, **keywords)

        monkeypatch.setattr(PostgreSQL, "take_keys", take_second)
        receipt = receive()
        assert (receipt.accepted, receipt.nrows) == (True, 3)
        assert (Batch.objects.count(), BatchRow.objects.count(), len(calls)) == (1, 3, 2)

    @pytest.mark.rule("FXR-8")
    def test_a_checker_that_finds_the_database_away_rejects_nothing(self) -> None:
        """An error of the database is not the fault of the file: it is decided on later."""

        def check(file, file_name, context):
            yield BatchInput(1, {})
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 1; SELECT PG_SLEEP(5)")

        register(check)
        with pytest.raises(OperationalError):
            receive()
        assert BatchFile.objects.get().is_accepted is None
        assert not Batch.objects.exists()
