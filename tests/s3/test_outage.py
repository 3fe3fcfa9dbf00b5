"""An S3 server that is away, refuses, or stops in the middle of a copy."""

from __future__ import annotations

import logging

import pytest
from botocore.config import Config
from django.core.files.base import ContentFile, File

from alya_django import (
    QueryResult,
    Status,
    batches,
    outputs,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.engine import finish
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("registry")]

MEGABYTE = "x" * 999_999


class InterruptedFile(File):
    """A file at whose third part something happens."""

    def __init__(self, file, act):
        super().__init__(file)
        self._reads = 0
        self._act = act

    def read(self, *arguments):
        self._reads += 1
        if self._reads == 3:
            self._act()
        return self.file.read(*arguments)


@pytest.fixture
def interrupt(monkeypatch):
    """Let something happen in the middle of each copy, until told otherwise."""
    save = outputs.save

    def at_third_part(act) -> None:
        monkeypatch.setattr(
            outputs,
            "save",
            lambda batch_id, attempt, name, file, *rest: save(
                batch_id, attempt, name, InterruptedFile(file, act), *rest
            ),
        )

    return at_third_part


def submit_large() -> object:
    """Submit a batch with an output file of 30 MB, which takes four parts."""
    register_batch_processor("bank", "write", write_lines)
    return batches.submit("bank", "write", [{"large.csv": MEGABYTE}] * 30)


class BatchTests:
    @pytest.mark.rule("FIN-3")
    def test_waits_while_the_server_is_away(self, storage, bucket, caplog) -> None:
        """All rows end, the batch does not; a later sweep finishes it, and nobody lost anything."""
        register_batch_processor("bank", "write", write_lines)
        bucket.server.stop()
        batch_id = batches.submit("bank", "write", [{"a.csv": "1"}, {"a.csv": "2"}])
        assert drain(raise_errors=False) == 2
        assert f"The output files of {batch_id} wait: the storage failed. EndpointConnectionError " in caplog.text
        assert (batches.status(batch_id).status, batches.status(batch_id).output_files) == (Status.IN_PROGRESS, {})
        bucket.server.start()
        assert drain() == 0
        with batches.open_output(batch_id, "a.csv") as file:
            assert file.read() == b"1\n2\n"
        assert set(bucket.objects()) == set(batches.status(batch_id).output_files.values())
        check_invariants()

    @pytest.mark.rule("FIN-3", "INV-8")
    @pytest.mark.parametrize("how", ["stop", "freeze"])
    def test_waits_when_the_server_stops_in_the_middle_of_a_copy(self, use_storage, bucket, interrupt, how) -> None:
        """Half a file is never an output file, nor an object at all."""
        use_storage(client_config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}))
        batch_id = submit_large()
        interrupt(getattr(bucket.server, how))
        assert drain(raise_errors=False) == 30
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        assert Batch.objects.get(pk=batch_id).output_files == {}
        # Thawed, this server takes a minute to find itself again.
        bucket.server.stop()
        bucket.server.start()
        assert bucket.objects() == {}
        use_storage()
        interrupt(lambda: None)
        drain()
        summary = batches.status(batch_id)
        assert summary.status is Status.SUCCESS
        assert bucket.objects() == {summary.output_files["large.csv"]: 30_000_000}
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_outlives_a_server_that_is_back_before_the_client_gives_up(self, storage, bucket, interrupt) -> None:
        """A restart in the middle of a copy fails that attempt at most; what is named is whole."""
        batch_id = submit_large()

        def restart() -> None:
            bucket.server.stop()
            bucket.server.start()

        interrupt(restart)
        drain(raise_errors=False)
        interrupt(lambda: None)
        drain()
        (name,) = batches.status(batch_id).output_files.values()
        assert bucket.objects() == {name: 30_000_000}

    @pytest.mark.rule("FIN-3")
    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ({"secret_key": "wrong"}, "SignatureDoesNotMatch"),
            ({"access_key": "nobody"}, "InvalidAccessKeyId"),
            ({"bucket_name": "elsewhere"}, "NoSuchBucket"),
        ],
        ids=["secret", "user", "bucket"],
    )
    def test_waits_while_the_settings_are_wrong(self, use_storage, caplog, options, code) -> None:
        """The log says what the server objects to; with the right settings the batch is finished."""
        use_storage(**options)
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "1"}])
        drain(raise_errors=False)
        (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert f"The output files of {batch_id} wait: the storage failed. " in line.message
        assert code in line.message
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        use_storage()
        drain()
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_does_not_hold_up_others(self, storage, bucket, monkeypatch, caplog) -> None:
        """A worker asks a failing storage once in a while, and goes on with what needs none."""
        register_batch_processor("bank", "write", write_lines)
        register_batch_processor("bank", "echo", echo)
        bucket.server.stop()
        waiting = [batches.submit("bank", "write", [{"a.csv": "1"}]) for _ in range(5)]
        other = batches.submit("bank", "echo", [1])
        with Worker() as worker:
            assert worker.drain() == 6
            assert caplog.text.count("the storage failed") == 1
            assert batches.status(other).status is Status.SUCCESS
            bucket.server.start()
            worker.drain()
            assert {batches.status(batch_id).status for batch_id in waiting} == {Status.IN_PROGRESS}
            monkeypatch.setattr(finish.time, "monotonic", lambda real=finish.time.monotonic: real() + 31)
            worker.drain()
        assert {batches.status(batch_id).status for batch_id in waiting} == {Status.SUCCESS}
        check_invariants()

    @pytest.mark.rule("FIN-2")
    def test_has_a_lease_as_long_as_its_file_is_large(self, storage, interrupt) -> None:
        """While a large file is copied nobody takes the batch for abandoned: a second more for each megabyte."""
        batch_id = submit_large()
        leases = []

        def look() -> None:
            batch = Batch.objects.get(pk=batch_id)
            leases.append((batch.finisher_until - batch.started_at).total_seconds())

        interrupt(look)
        drain()
        assert all(lease >= 150 for lease in leases)
        assert leases


class SlowQueryTests:
    @pytest.mark.rule("SQD-1")
    def test_is_asked_again_when_its_files_cannot_be_saved(self, storage, bucket, caplog) -> None:
        """The answer waits for the storage: the row is given back, blamed for nothing, and answered later."""
        register_slow_query_processor(
            "bank", "report", lambda row: QueryResult.success(1, output_files={"a.csv": ContentFile(b"x")})
        )
        query_id = slow_queries.submit("bank", "report", {})
        bucket.server.stop()
        assert drain(raise_errors=False) == 0
        assert f"The output files of {query_id} wait: the storage failed." in caplog.text
        assert slow_queries.result(query_id).try_later
        row = BatchRow.objects.get(batch=query_id)
        assert (row.status, row.lost, row.retries) == (Status.QUEUED, 0, 0)
        bucket.server.start()
        BatchRow.objects.filter(batch=query_id).update(retry_at="2000-01-01T00:00Z")
        drain()
        answer = slow_queries.result(query_id)
        assert (answer.status, answer.result) == (Status.SUCCESS, 1)
        assert set(bucket.objects()) == set(answer.output_files.values())
        check_invariants()
