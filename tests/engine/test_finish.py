from __future__ import annotations

import logging
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import OperationalError

from alya_django import (
    AlreadyDone,
    BatchProcessor,
    QueryResult,
    Row,
    RowFailed,
    RowResult,
    Status,
    batches,
    join,
    outputs,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
    status_cache,
)
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import Recording, RecordingQuery, echo, fail_odd, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]

LONG_AGO = "2000-01-01T00:00Z"


@pytest.fixture
def finisher(make_finisher):
    """What finishes batches, of a worker that has no init block yet."""
    return make_finisher()


@pytest.fixture
def complete(make_claimer, make_recorder):
    """The id of a batch whose rows have ended and which nobody has finished."""
    register_batch_processor("app", "op", write_lines)
    batch_id = batches.submit("app", "op", [{"a.csv": "one"}, {"a.csv": "two"}])
    chunk = make_claimer(7).take()
    endings = [(row.id, Status.SUCCESS, "{}", None, row.input) for row in chunk.rows]
    from alya_django.db import RowEnding

    make_recorder(7).record(batch_id, chunk.claim, [RowEnding(*ending) for ending in endings])
    return batch_id


class FinishTests:
    @pytest.mark.rule("FIN-1", "FIN-4", "INV-1", "INV-2", "INV-3")
    @pytest.mark.parametrize(
        ("lines", "status", "nsuccess", "nfailed"), [([2, 4], Status.SUCCESS, 2, 0), ([1, 2, 3], Status.FAILED, 1, 2)]
    )
    def test_the_last_row_ends_the_batch(self, lines, status, nsuccess, nfailed) -> None:
        """A batch succeeds when all rows did, and fails when one has failed, with exact counts."""
        register_batch_processor("app", "op", fail_odd)
        from alya_django import BatchInput

        batch_id = batches.submit("app", "op", [BatchInput(line, {}) for line in lines])
        assert drain() == len(lines)
        summary = batches.status(batch_id)
        assert (summary.status, summary.nsuccess, summary.nfailed) == (status, nsuccess, nfailed)
        batch = Batch.objects.get(pk=batch_id)
        assert batch.done_at is not None
        assert batch.started_at is not None
        check_invariants()

    @pytest.mark.rule("FIN-1")
    def test_is_not_finished_while_a_row_is_pending(self, finisher, make_claimer) -> None:
        """With a row still in progress there is nothing to finish."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        make_claimer(1).take()
        assert not finisher.finish(batch_id)
        assert batches.status(batch_id).status is Status.IN_PROGRESS

    @pytest.mark.rule("FIN-1")
    def test_finishes_once(self, finisher, complete) -> None:
        """The second to try finds nothing to do."""
        assert finisher.finish(complete)
        assert not finisher.finish(complete)
        check_invariants()

    @pytest.mark.rule("FIN-1")
    def test_leaves_a_batch_that_another_is_finishing(self, finisher, complete) -> None:
        """While a finisher's lease runs the batch is its own; afterwards anybody's."""
        other = uuid4()
        Batch.objects.filter(pk=complete).update(finisher=other, finisher_until="2999-01-01T00:00Z")
        assert not finisher.finish(complete)
        Batch.objects.filter(pk=complete).update(finisher_until=LONG_AGO)
        assert finisher.finish(complete)

    @pytest.mark.rule("FIN-3")
    def test_deletes_what_a_dead_finisher_left(self, finisher, complete) -> None:
        """Files of an earlier attempt are gone, those of the batch are there."""
        dead = uuid4()
        left = outputs.save(complete, dead, "a.csv", ContentFile(b"half"))
        Batch.objects.filter(pk=complete).update(finisher=dead, finisher_until=LONG_AGO)
        assert finisher.finish(complete)
        assert not default_storage.exists(left)
        with batches.open_output(complete, "a.csv") as file:
            assert file.read() == b"one\ntwo\n"

    @pytest.mark.rule("FIN-1", "FIN-2")
    def test_a_finisher_that_was_overtaken_takes_its_files_back(
        self, complete, finisher, make_finisher, monkeypatch
    ) -> None:
        """Who loses the lease while it copies changes nothing and leaves nothing in the storage."""
        join = finisher._join_output_files

        def join_slowly(batch_id, token):
            output_files = join(batch_id, token)
            Batch.objects.filter(pk=batch_id).update(finisher_until=LONG_AGO)
            assert make_finisher().finish(batch_id)
            return output_files

        monkeypatch.setattr(finisher, "_join_output_files", join_slowly)
        assert not finisher.finish(complete)
        (kept,) = batches.status(complete).output_files.values()
        attempts, _ = default_storage.listdir(f"alya/{complete}")
        files = [name for attempt in attempts for name in default_storage.listdir(f"alya/{complete}/{attempt}")[1]]
        assert len(files) == 1
        assert default_storage.exists(kept)

    @pytest.mark.rule("FIN-3")
    def test_a_failing_storage_leaves_the_batch_to_the_next(
        self, settings, tmp_path, complete, finisher, caplog
    ) -> None:
        """When files cannot be stored the batch stays as it is and is finished when they can."""
        blocked = tmp_path / "blocked"
        blocked.write_text("a file where the storage wants a folder")
        file_system = settings.STORAGES
        settings.STORAGES = {
            **file_system,
            "default": {**file_system["default"], "OPTIONS": {"location": blocked}},
        }
        with caplog.at_level(logging.ERROR, "alya_django.engine"):
            assert not finisher.finish(complete)
        assert f"The output files of {complete} wait: the storage failed. NotADirectoryError (ENOTDIR) " in caplog.text
        assert batches.status(complete).status is Status.IN_PROGRESS
        settings.STORAGES = file_system
        with Worker() as worker:
            worker.drain()
        assert batches.status(complete).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_a_failing_database_is_no_failing_storage(self, complete, finisher, monkeypatch) -> None:
        """Who loses the database while it reads the rows says so, and leaves the batch to the next."""

        def fail(batch_id, only=None):
            raise OperationalError("the connection is lost")

        monkeypatch.setattr(join, "contributions", fail)
        with pytest.raises(OperationalError, match="the connection is lost"):
            finisher.finish(complete)
        monkeypatch.undo()
        assert finisher.finish(complete)

    @pytest.mark.rule("ABT-6")
    def test_abort_comes_too_late_when_all_rows_have_ended(self, complete, finisher) -> None:
        """AlreadyDone tells the state that the batch is about to have; a worker finishes it."""
        with pytest.raises(AlreadyDone) as raised:
            batches.abort(complete)
        assert (raised.value.status, raised.value.summary.nsuccess) == (Status.SUCCESS, 2)
        assert finisher.finish(complete)
        assert batches.status(complete).status is Status.SUCCESS

    @pytest.mark.rule("FIN-5")
    def test_looking_whether_a_batch_is_complete_reads_no_rows(self, complete, finisher, django_assert_num_queries):
        """The test after each chunk asks the progress slots, in one statement."""
        Batch.objects.filter(pk=complete).update(nrows=3)
        with django_assert_num_queries(1) as captured:
            assert not finisher.finish(complete)
        assert "alya_batchrows" not in captured.captured_queries[0]["sql"]

    def test_the_cache_has_the_final_state_at_once(self) -> None:
        """A poll just before the end does not hide the end."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        batches.status(batch_id)
        drain()
        assert status_cache.load(batch_id).status is Status.SUCCESS


class SlowQueryFinishTests:
    @pytest.mark.rule("INV-2", "INV-7")
    def test_ends_with_its_row(self) -> None:
        """The query has the state of its row, counts and all."""
        register_slow_query_processor("app", "op", RecordingQuery())
        query_id = slow_queries.submit("app", "op", {"q": 1})
        assert drain() == 1
        query = Batch.objects.get(pk=query_id)
        assert (query.status, query.nsuccess, query.nfailed, query.naborted) == (Status.SUCCESS, 1, 0, 0)
        check_invariants()

    @pytest.mark.rule("FIN-3")
    def test_a_failing_database_is_no_failing_storage(self, monkeypatch) -> None:
        """A storage that lies in the database fails as the database does: the worker hears of it."""

        def fail(*arguments):
            raise OperationalError("the connection is lost")

        files = {"a.csv": ContentFile(b"x")}
        register_slow_query_processor("app", "op", lambda row: QueryResult.success(output_files=files))
        query_id = slow_queries.submit("app", "op", {})
        monkeypatch.setattr(outputs, "save", fail)
        with pytest.raises(OperationalError, match="the connection is lost"):
            drain()
        assert slow_queries.result(query_id).try_later

    def test_files_of_an_aborted_query_are_deleted(self) -> None:
        """A late answer is dropped with the files that came with it."""

        def abort_and_answer(row: Row) -> QueryResult:
            slow_queries.abort(row.batch_id)
            return QueryResult.success(output_files={"late.csv": ContentFile(b"late")})

        register_slow_query_processor("app", "op", abort_and_answer)
        query_id = slow_queries.submit("app", "op", {})
        assert drain() == 0
        assert slow_queries.result(query_id).status is Status.ABORTED
        assert default_storage.listdir(f"alya/{query_id}") == ([], [])
        check_invariants()


class MarkDoneTests:
    @pytest.mark.rule("MKD-1", "MKD-5")
    def test_is_called_once_with_the_final_details(self) -> None:
        """``mark_done`` gets what was submitted and what came out."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("app", "op", [1, 2], context={"who": "me"}, input_file="in.csv", requested_by="asha")
        drain()
        drain()
        (details,) = recording.done
        assert (details.id, details.app, details.op, details.status) == (batch_id, "app", "op", Status.SUCCESS)
        assert (details.nrows, details.nsuccess, details.nfailed, details.naborted) == (2, 2, 0, 0)
        assert (details.context, details.input_file, details.requested_by) == ({"who": "me"}, "in.csv", "asha")
        assert details.requested_at <= details.started_at <= details.done_at
        assert Batch.objects.get(pk=batch_id).marked_done_at is not None

    @pytest.mark.rule("MKD-1")
    def test_sees_the_final_state(self) -> None:
        """By then the batch is finished for everybody, its files included."""
        seen = []

        class Looking(BatchProcessor):
            def do_batch_job(self, row: Row) -> RowResult:
                return RowResult.success(output_lines={"a": "x"})

            def mark_done(self, details) -> None:
                with batches.open_output(details.id, "a") as file:
                    seen.append((batches.status(details.id).status, file.read()))

        register_batch_processor("app", "op", Looking)
        batches.submit("app", "op", [1])
        drain()
        assert seen == [(Status.SUCCESS, b"x\n")]

    @pytest.mark.rule("MKD-1")
    def test_is_called_for_slow_queries(self) -> None:
        """Slow queries have it too, in every final state."""
        recording = RecordingQuery()
        register_slow_query_processor("app", "op", recording)
        slow_queries.submit("app", "op", {})
        aborted = slow_queries.submit("app", "op", {})
        slow_queries.abort(aborted)
        drain()
        assert sorted(details.status for details in recording.done) == [Status.ABORTED, Status.SUCCESS]

    @pytest.mark.rule("MKD-1", "ABT-8")
    def test_is_called_for_an_aborted_batch(self) -> None:
        """An abort is told by the next worker that looks."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("app", "op", [1, 2])
        batches.abort(batch_id)
        assert recording.done == []
        drain()
        (details,) = recording.done
        assert (details.status, details.naborted) == (Status.ABORTED, 2)

    @pytest.mark.rule("MKD-2")
    def test_an_exception_is_kept_and_not_repeated(self, caplog) -> None:
        """What it raises is logged and stored with the batch, whose state stands."""

        class Failing(Recording):
            def mark_done(self, details) -> None:
                super().mark_done(details)
                raise OSError("no mail today")

        failing = Failing()
        register_batch_processor("app", "op", failing)
        batch_id = batches.submit("app", "op", [1])
        with caplog.at_level(logging.ERROR), pytest.raises(OSError, match="no mail today"):
            drain()
        drain()
        assert len(failing.done) == 1
        batch = Batch.objects.get(pk=batch_id)
        assert batch.status == Status.SUCCESS
        assert batch.marked_done_at is not None
        assert batch.mark_done_error.endswith("OSError: no mail today\n")
        assert f"mark_done of {batch_id} failed: OSError at " in caplog.text

    @pytest.mark.rule("ERR-6")
    def test_what_it_raises_is_kept_whatever_it_is(self) -> None:
        """sys.exit() in it ends no worker, and it is not called again."""

        class Leaving(Recording):
            def mark_done(self, details) -> None:
                super().mark_done(details)
                raise SystemExit(3)

        leaving = Leaving()
        register_batch_processor("app", "op", leaving)
        batch_id = batches.submit("app", "op", [1])
        drain(raise_errors=False)
        assert len(leaving.done) == 1
        assert Batch.objects.get(pk=batch_id).mark_done_error.endswith("SystemExit: 3\n")

    @pytest.mark.rule("MKD-3")
    def test_is_called_again_when_the_first_call_did_not_return(self) -> None:
        """A worker that dies in ``mark_done`` leaves it to another, once its lease has run out."""

        class Dying(Recording):
            def mark_done(self, details) -> None:
                super().mark_done(details)
                if len(self.done) == 1:
                    raise KeyboardInterrupt

        dying = Dying()
        register_batch_processor("app", "op", dying)
        batch_id = batches.submit("app", "op", [1])
        with pytest.raises(KeyboardInterrupt):
            drain()
        assert batches.status(batch_id).status is Status.SUCCESS
        drain()
        assert len(dying.done) == 1, "the lease of the first still runs"
        Batch.objects.filter(pk=batch_id).update(finisher_until=LONG_AGO)
        drain()
        assert len(dying.done) == 2

    @pytest.mark.rule("MKD-4")
    def test_is_skipped_without_a_processor(self, settings, caplog) -> None:
        """Where no processor is registered the end is only logged."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        batch_id = batches.submit("app", "op", [1])
        drain()
        batch = Batch.objects.get(pk=batch_id)
        assert (batch.status, batch.mark_done_error) == (Status.FAILED, "")
        assert batch.marked_done_at is not None
        assert f"No processor for app/op: {batch_id} ended without mark_done." in caplog.text

    def test_a_processor_need_not_have_it(self) -> None:
        """An object with ``do_batch_job`` alone is a processor."""

        class Bare:
            def do_batch_job(self, row: Row) -> None:
                raise RowFailed("no")

        register_batch_processor("app", "op", Bare)
        batch_id = batches.submit("app", "op", [1])
        assert drain() == 1
        assert Batch.objects.get(pk=batch_id).mark_done_error == ""
        assert BatchRow.objects.filter(batch=batch_id).count() == 1

    def test_may_be_a_coroutine_function(self) -> None:
        """``async def mark_done`` is awaited."""
        seen = []

        class Waiting(Recording):
            async def mark_done(self, details) -> None:
                seen.append(details.id)

        register_batch_processor("app", "op", Waiting())
        batch_id = batches.submit("app", "op", [1])
        drain()
        assert seen == [batch_id]
