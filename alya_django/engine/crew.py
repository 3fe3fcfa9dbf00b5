"""Process rows of a chunk side by side: in threads, or on an event loop where the method is a coroutine."""

from __future__ import annotations

import inspect
from asyncio import TaskGroup, create_task
from asyncio import wait as wait_in_loop
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.db import connections

from alya_django.engine.claim import ClaimedRow
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.process import Processed, Processing
from alya_django.models import database

Answer = TypeVar("Answer")
Put = Callable[[Processed | None], None]
Work = Callable[["Processing", "Rows", Any, int, Put], None]


class Crew:
    """
    The threads of one worker, each with init blocks of its own: no block is ever used by two.

    They live as long as the worker, so what a block or a processor keeps for its thread is found there again. After
    every chunk a thread lets go of database connections, as Django does after a request.
    """

    def __init__(self, init_blocks: InitBlocks) -> None:
        self._init_blocks = init_blocks
        self._seats: list[Seat] = []

    def process(self, processing: Processing, goes_on: Callable[[], bool]) -> Iterator[Processed]:
        """
        Run the rows of a chunk, as long as it goes on, yielding how each ended as soon as it has.

        Raises:
            InitFailed: A thread could not make its init block; the other threads have done what they could.
        """
        registration = processing.chunk.registration
        is_async = inspect.iscoroutinefunction(registration.raw_method)
        rows = Rows(processing.chunk.rows, goes_on)
        ended: SimpleQueue[Processed | None] = SimpleQueue()
        work = _run_coroutines if is_async else _run_rows
        seats = self._take_seats(1 if is_async else min(registration.options.concurrency, len(processing.chunk.rows)))
        running = [
            seat.begin(partial(_work_at, seat, slot, work, processing, rows, ended.put))
            for slot, seat in enumerate(seats)
        ]
        for future in running:
            future.add_done_callback(lambda _: ended.put(None))
        try:
            for _ in running:
                yield from iter(ended.get, None)
        finally:
            rows.close()
            wait(running)
        for future in running:
            future.result()

    def close(self) -> None:
        """Close the init blocks of all threads, each in its own, and end them."""
        for seat in self._seats:
            seat.close()

    def _take_seats(self, count: int) -> list[Seat]:
        while len(self._seats) < count:
            self._seats.append(Seat(self._init_blocks.beside()))
        return self._seats[:count]


class Seat:
    """One thread and its init blocks."""

    def __init__(self, init_blocks: InitBlocks) -> None:
        self._init_blocks = init_blocks
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alya-crew")

    def block(self, app: str) -> Any:
        """Return the live init block of an app; called in the thread."""
        return self._init_blocks.get(app)

    def begin(self, work: Callable[[], None]) -> Future[None]:
        """Have the thread do some work."""

        def work_and_let_go() -> None:
            try:
                work()
            finally:
                for connection in connections.all(initialized_only=True):
                    connection.close_if_unusable_or_obsolete()

        return self._thread.submit(work_and_let_go)

    def close(self) -> None:
        """Close the init blocks and the connections in the thread, and end it."""
        self._thread.submit(self._init_blocks.close).result()
        self._thread.submit(connections.close_all).result()
        self._thread.shutdown()


class Rows:
    """The rows of a chunk, dealt out one by one to whoever asks, until it is not to go on."""

    def __init__(self, rows: Iterable[ClaimedRow], goes_on: Callable[[], bool]) -> None:
        self._rows = iter(rows)
        self._goes_on = goes_on
        self._dealing = Lock()

    def __iter__(self) -> Iterator[ClaimedRow]:
        return self

    def __next__(self) -> ClaimedRow:
        with self._dealing:
            if not self._goes_on():
                raise StopIteration
            return next(self._rows)

    def close(self) -> None:
        """Deal out no more."""
        with self._dealing:
            self._rows = iter(())


def _work_at(seat: Seat, slot: int, work: Work, processing: Processing, rows: Rows, put: Put) -> None:
    work(processing, rows, seat.block(processing.chunk.registration.app), slot, put)


def _run_rows(processing: Processing, rows: Rows, init_block: Any, slot: int, put: Put) -> None:
    call = database().guarded(processing.chunk.registration.method)
    for claimed in rows:
        put(processing.run(claimed, call, init_block, slot))


def _run_coroutines(processing: Processing, rows: Rows, init_block: Any, slot: int, put: Put) -> None:
    """Run as many rows at once as the op wants, on an event loop of this thread."""
    registration = processing.chunk.registration
    begin = partial(processing.arun, call=registration.raw_method, init_block=init_block)
    in_hand: dict[int, ClaimedRow] = {}

    async def run_rows(slot: int) -> None:
        for claimed in rows:
            in_hand[slot] = claimed
            # A task of its own, which the row may cancel.
            task = create_task(begin(claimed, slot=slot))
            await wait_in_loop((task,))
            put(task.result())
            del in_hand[slot]

    async def run_all() -> None:
        async with TaskGroup() as group:
            for number in range(registration.options.concurrency):
                group.create_task(run_rows(slot + number))

    # Whatever the coroutines ask of the database, Django asks in this thread.
    while isinstance(fault := _outcome(async_to_sync(run_all)), BaseException):
        if not in_hand:
            raise fault
        # sys.exit() in a task that a row has begun ends the loop, and nobody knows whose it was: what was in hand is
        # run again, each row on a loop of its own.
        for slot_of_row, claimed in in_hand.items():
            outcome = _outcome(partial(async_to_sync(begin), claimed, slot=slot_of_row))
            put(outcome if isinstance(outcome, Processed) else processing.faulty(claimed, outcome))
        in_hand.clear()


def _outcome(run: Callable[[], Answer]) -> Answer | BaseException:
    """Run an event loop and return what comes of it, also an exception that has ended the loop itself."""
    try:
        return run()
    except BaseException as error:
        return error
