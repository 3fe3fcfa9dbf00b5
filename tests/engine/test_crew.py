"""Rows of a chunk processed side by side."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict

import pytest
from django.db import connection

from alya_django import InitBlock, Row, RowFailed, Status, batches, register_batch_processor, register_initializer
from alya_django.engine.crew import Crew
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.process import Processing
from alya_django.engine.worker import Worker
from alya_django.models import Batch
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

DEADLINE_SECONDS = 20


def work_off(inputs, **submit):
    """Work off rows as the command does, with threads; return their outcomes in the order of lines."""
    batch_id = batches.submit("app", "op", inputs, **submit)
    with Worker(beats_alone=True) as worker:
        worker.drain()
    check_invariants()
    return list(batches.iter_rows(batch_id))


class Numbered(InitBlock):
    """A block that notes which threads have used and closed it."""

    made: list[Numbered]

    def __init__(self) -> None:
        self.used_by = {threading.get_ident()}
        self.closed_by: list[int] = []
        self.made.append(self)

    def close(self) -> None:
        self.closed_by.append(threading.get_ident())


class ThreadTests:
    @pytest.mark.rule("CON-1")
    def test_runs_rows_at_the_same_time(self) -> None:
        """Rows that wait for each other all end."""
        together = threading.Barrier(4)
        register_batch_processor("app", "op", lambda row: together.wait(DEADLINE_SECONDS) * 0, concurrency=4)
        assert [row.status for row in work_off(range(8))] == [Status.SUCCESS] * 8

    @pytest.mark.rule("INI-5")
    def test_no_init_block_is_used_by_two_threads(self, monkeypatch) -> None:
        """Each thread makes its own, keeps it across chunks, and closes it."""
        monkeypatch.setattr(Numbered, "made", [], raising=False)
        register_initializer("app", lambda app: Numbered())
        together = threading.Barrier(3)

        @register_batch_processor("app", "op", concurrency=3, chunk_rows=3)
        def op(row: Row) -> None:
            row.init_block.used_by.add(threading.get_ident())
            together.wait(DEADLINE_SECONDS)

        assert [row.status for row in work_off(range(9))] == [Status.SUCCESS] * 9
        used = [block for block in Numbered.made if len(block.used_by) == 1 and block.closed_by]
        assert len(used) == len(Numbered.made) == 4
        assert all(set(block.closed_by) == block.used_by for block in Numbered.made)

    @pytest.mark.rule("CON-2")
    def test_a_row_that_fails_fails_alone(self) -> None:
        """As it does where rows are processed one after the other; sys.exit() in a row is no more than its failure."""

        @register_batch_processor("app", "op", concurrency=3)
        def op(row: Row) -> None:
            if row.line == 2:
                raise RowFailed("refused")
            if row.line == 3:
                raise SystemExit(1)

        rows = work_off(range(5))
        assert [row.status for row in rows] == [
            Status.SUCCESS,
            Status.FAILED,
            Status.FAILED,
            Status.SUCCESS,
            Status.SUCCESS,
        ]
        assert rows[2].messages[0].vals == ("SystemExit: 1",)

    @pytest.mark.rule("CON-3")
    def test_threads_let_go_of_their_connections(self) -> None:
        """After a chunk no connection of a thread stays that would not stay after a request."""
        seen = defaultdict(set)

        @register_batch_processor("app", "op", concurrency=2)
        def op(row: Row) -> None:
            Batch.objects.count()
            seen[threading.get_ident()].add(connection.connection)

        assert [row.status for row in work_off(range(10))] == [Status.SUCCESS] * 10
        assert all(raw.closed for raws in seen.values() for raw in raws)

    @pytest.mark.rule("RUN-4")
    def test_a_stop_lets_the_rows_in_hand_end(self) -> None:
        """They are recorded; those that have not begun are given back."""
        worker = Worker(beats_alone=True)
        together = threading.Barrier(2)

        @register_batch_processor("app", "op", concurrency=2)
        def op(row: Row) -> None:
            together.wait(DEADLINE_SECONDS)
            worker.stop()

        batch_id = batches.submit("app", "op", range(6))
        with worker:
            assert worker.round() == 2
        check_invariants()
        statuses = [row.status for row in batches.iter_rows(batch_id)]
        assert statuses == [Status.SUCCESS] * 2 + [Status.QUEUED] * 4

    @pytest.mark.parametrize("error", [OSError, SystemExit])
    def test_an_initializer_that_fails_in_a_thread_blames_no_row(self, error) -> None:
        """The rows are given back, as where the worker's own fails."""
        main = threading.get_ident()

        def initialize(app: str) -> None:
            if threading.get_ident() != main:
                raise error("no more")

        register_initializer("app", initialize)
        register_batch_processor("app", "op", lambda row: None, concurrency=2)
        rows = work_off(range(2))
        assert [(row.status, row.messages) for row in rows] == [(Status.QUEUED, ())] * 2

    def test_what_was_done_is_recorded_where_another_thread_has_no_init_block(self) -> None:
        """Nobody does again what one thread has done before the other's initializer failed."""
        main, first, is_done = threading.get_ident(), threading.Lock(), threading.Event()

        def initialize(app: str) -> None:
            if threading.get_ident() != main and not first.acquire(blocking=False):
                assert is_done.wait(DEADLINE_SECONDS)
                raise OSError("no more")

        @register_batch_processor("app", "op", concurrency=2)
        def op(row: Row) -> None:
            if row.line == 2:
                is_done.set()

        register_initializer("app", initialize)
        assert [row.status for row in work_off(range(2))] == [Status.SUCCESS] * 2


class CoroutineTests:
    @pytest.mark.rule("CON-1")
    def test_runs_coroutines_on_one_event_loop(self) -> None:
        """Rows that wait for each other all end, in one thread."""
        threads = set()
        waiting: dict[int, asyncio.Event] = defaultdict(asyncio.Event)

        @register_batch_processor("app", "op", concurrency=4)
        async def op(row: Row) -> int:
            threads.add(threading.get_ident())
            waiting[row.line].set()
            await asyncio.wait_for(waiting[row.line + 1 if row.line % 4 else row.line - 3].wait(), DEADLINE_SECONDS)
            return await Batch.objects.acount()

        assert [(row.status, row.result) for row in work_off(range(8))] == [(Status.SUCCESS, 1)] * 8
        assert len(threads) == 1

    @pytest.mark.rule("CON-2")
    def test_a_coroutine_that_fails_fails_alone(self) -> None:
        """Also one that cancels itself."""

        @register_batch_processor("app", "op", concurrency=3)
        async def op(row: Row) -> None:
            if row.line == 2:
                raise asyncio.CancelledError
            if row.line == 3:
                raise RowFailed("refused")

        assert [row.status for row in work_off(range(4))] == [
            Status.SUCCESS,
            Status.FAILED,
            Status.FAILED,
            Status.SUCCESS,
        ]

    def test_an_error_of_its_own_is_raised(self, make_claimer) -> None:
        """What ends the event loop while no row is in hand is none of a row's."""

        async def op(row: Row) -> None:
            raise AssertionError("never begun")

        def fail() -> bool:
            raise LookupError("a fault")

        register_batch_processor("app", "op", op, concurrency=2)
        batches.submit("app", "op", range(2))
        crew = Crew(InitBlocks())
        with pytest.raises(BaseExceptionGroup) as caught:
            list(crew.process(Processing(make_claimer(1).take(), set()), fail))
        crew.close()
        assert caught.group_contains(LookupError)

    @pytest.mark.rule("ERR-6")
    def test_a_row_that_ends_the_event_loop_fails_alone(self) -> None:
        """What was in hand beside it is run again, and what was not begun goes on."""

        async def leave() -> None:
            raise SystemExit(2)

        @register_batch_processor("app", "op", concurrency=3)
        async def op(row: Row) -> None:
            if row.line == 2:
                await asyncio.create_task(leave())
            await asyncio.sleep(0)

        rows = work_off(range(6))
        assert [row.status for row in rows] == [Status.SUCCESS, Status.FAILED, *[Status.SUCCESS] * 4]
        assert rows[1].messages[0].vals == ("SystemExit: 2",)
