from __future__ import annotations

import logging

import pytest

from alya_django import Status, batches, register_batch_processor, register_initializer
from alya_django.engine.worker import Worker
from alya_django.models import BatchRow
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import CountingInitializer, Recording

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


def _drain_and_raise(worker: Worker, error: Exception) -> None:
    worker.drain()
    raise error


class InitBlockTests:
    @pytest.mark.rule("INI-1")
    def test_is_made_before_the_first_row_and_kept(self) -> None:
        """One block serves all rows and chunks of an app, and none is made where there is no row."""
        initializer, recording = CountingInitializer(), Recording()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", recording)
        with Worker() as worker:
            worker.drain()
            assert initializer.calls == 0
            for _ in range(3):
                batches.submit("app", "op", range(20))
            worker.drain()
        assert initializer.calls == 1
        assert {id(row.init_block) for row in recording.rows} == {id(initializer.blocks[0])}

    @pytest.mark.rule("INI-1")
    def test_apps_have_blocks_of_their_own(self) -> None:
        """Each app's initializer is asked with the app's name."""
        asked: list[str] = []
        for app in ("one", "two"):
            register_initializer(app, asked.append)
            register_batch_processor(app, "op", Recording())
            batches.submit(app, "op", [1])
        drain()
        assert sorted(asked) == ["one", "two"]

    @pytest.mark.rule("INI-2", "INI-3")
    def test_a_dead_block_is_closed_once_and_replaced(self) -> None:
        """A block that is no longer alive at the start of a chunk gives way to a new one."""
        initializer, recording = CountingInitializer(), Recording()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", recording)
        with Worker() as worker:
            batches.submit("app", "op", [1])
            worker.drain()
            initializer.blocks[0].is_dead = True
            batches.submit("app", "op", [1])
            worker.drain()
            assert [block.closed for block in initializer.blocks] == [1, 0]
        assert [block.closed for block in initializer.blocks] == [1, 1]
        assert [row.init_block for row in recording.rows] == initializer.blocks

    @pytest.mark.rule("INI-2")
    def test_a_block_that_cannot_tell_is_dead(self) -> None:
        """An exception of ``is_alive`` counts as no."""
        initializer = CountingInitializer()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", Recording())
        with Worker() as worker:
            for _ in range(2):
                batches.submit("app", "op", [1])
                worker.drain()
                initializer.blocks[-1].is_alive = None
        assert [block.closed for block in initializer.blocks] == [1, 1]

    @pytest.mark.rule("INI-3")
    def test_blocks_are_closed_when_the_worker_dies_of_an_error(self) -> None:
        """The end of a worker closes its blocks whatever ended it."""
        initializer = CountingInitializer()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", Recording())
        batches.submit("app", "op", [1])
        with pytest.raises(OSError, match="gone"), Worker() as worker:
            _drain_and_raise(worker, OSError("gone"))
        assert [block.closed for block in initializer.blocks] == [1]

    @pytest.mark.rule("INI-3")
    def test_a_block_that_cannot_be_closed_is_only_logged(self, caplog) -> None:
        """What ``close`` raises ends nothing."""

        class Stuck:
            def close(self) -> None:
                raise OSError("stuck")

        register_initializer("app", lambda app: Stuck())
        register_batch_processor("app", "op", Recording())
        batches.submit("app", "op", [1])
        with caplog.at_level(logging.ERROR):
            assert drain() == 1
        assert "The init block of app app could not be closed: OSError at " in caplog.text

    @pytest.mark.rule("INI-4")
    def test_nothing_is_a_block_too(self) -> None:
        """An initializer that returns None is asked once."""
        calls: list[str] = []
        register_initializer("app", lambda app: calls.append(app))
        recording = Recording()
        register_batch_processor("app", "op", recording)
        with Worker() as worker:
            for _ in range(3):
                batches.submit("app", "op", range(3))
                worker.drain()
        assert calls == ["app"]
        assert {row.init_block for row in recording.rows} == {None}

    @pytest.mark.rule("INI-5")
    def test_workers_share_no_block(self) -> None:
        """Each worker, of which a thread has one, makes its own."""
        initializer, recording = CountingInitializer(), Recording()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", recording)
        with Worker() as first, Worker() as second:
            for worker in (first, second):
                batches.submit("app", "op", [1])
                worker.run_once()
        assert [row.init_block for row in recording.rows] == initializer.blocks
        assert len(initializer.blocks) == 2

    def test_an_app_without_an_initializer_has_none(self) -> None:
        """An initializer is optional."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        batches.submit("app", "op", [1])
        drain()
        assert recording.rows[0].init_block is None

    @pytest.mark.rule("INI-6", "MKD-5")
    def test_mark_done_gets_the_live_block(self) -> None:
        """``details.init_block`` is the block that the rows had."""
        initializer, recording = CountingInitializer(), Recording()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", recording)
        batches.submit("app", "op", [1])
        drain()
        assert recording.done[0].init_block is initializer.blocks[0]


class FailingInitializerTests:
    def test_gives_the_rows_back_and_rests(self) -> None:
        """While an initializer fails its rows wait, unblamed, and the app is left alone for a while."""
        initializer = CountingInitializer(OSError("down"))
        register_initializer("app", initializer)
        register_batch_processor("app", "op", Recording())
        batch_id = batches.submit("app", "op", range(3))
        assert drain(raise_errors=False) == 0
        assert initializer.calls == 1
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        rows = BatchRow.objects.filter(batch=batch_id)
        assert {(row.status, row.lost, row.retries, row.done_by) for row in rows} == {(Status.QUEUED, 0, 0, None)}
        assert all(row.retry_at is not None for row in rows)
        check_invariants()

    def test_raises_the_error_in_tests(self) -> None:
        """``drain`` raises what the initializer raised."""
        register_initializer("app", CountingInitializer(OSError("down")))
        register_batch_processor("app", "op", Recording())
        batches.submit("app", "op", [1])
        with pytest.raises(OSError, match="down"):
            drain()

    def test_goes_on_once_it_works(self) -> None:
        """Rows that were given back are processed when the initializer has recovered."""
        register_initializer("app", CountingInitializer(OSError("down")))
        register_batch_processor("app", "op", Recording())
        batch_id = batches.submit("app", "op", range(3))
        drain(raise_errors=False)
        BatchRow.objects.filter(batch=batch_id).update(retry_at="2000-01-01T00:00Z")
        assert drain() == 3
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("ERR-1", "ERR-2", "ERR-4")
    def test_fails_the_rest_of_the_batch_after_the_time_allowed(self, settings) -> None:
        """With no time allowed the whole batch fails at once with message 5, and is finished as any other."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        initializer = CountingInitializer(OSError("down"))
        recording = Recording()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("app", "op", range(30))
        drain(raise_errors=False)
        result = batches.result(batch_id)
        assert (result.status, result.nfailed) == (Status.FAILED, 30)
        assert {row.messages for row in result.rows} == {
            (result.rows[0].messages[0],),
        }
        (message,) = result.rows[0].messages
        assert (message.msgid, message.errcode) == (5, "configerror")
        assert message.vals == ("The initializer of app 'app' failed: OSError: down",)
        assert recording.rows == []
        check_invariants()
        drain()
        assert [details.nfailed for details in recording.done] == [30]

    @pytest.mark.rule("INI-6", "MKD-3")
    def test_mark_done_waits_for_a_block(self, settings) -> None:
        """Where no block can be made ``mark_done`` is not called, and is called once there is one."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        recording = Recording()
        register_initializer("app", CountingInitializer(OSError("down"), OSError("down")))
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("app", "op", [1])
        for _ in range(2):
            drain(raise_errors=False)
            assert batches.status(batch_id).status is Status.FAILED
            assert recording.done == []
        drain()
        assert len(recording.done) == 1

    def test_deliveries_leave_it_its_rest(self, settings) -> None:
        """An initializer that is given a rest is not asked for the sake of ``mark_done`` either."""
        initializer = CountingInitializer(OSError("down"), OSError("down"))
        register_initializer("app", initializer)
        register_batch_processor("app", "op", Recording())
        batch_id = batches.submit("app", "op", [1])
        batches.abort(batch_id)
        with Worker() as worker:
            for _ in range(5):
                worker.run_once()
        assert initializer.calls == 1
