"""Doing things on a second connection, at a moment that the test chooses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import connection, connections, transaction

Answer = TypeVar("Answer")
# Where nothing is wrong nobody waits so long, however busy the machine is.
DEADLINE_SECONDS = 180


def wait_until(condition: Callable[[], Any], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for a condition, for some seconds at most."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


def elsewhere(act: Callable[[], Answer]) -> Future[Answer]:
    """Begin something in a thread of its own, on a connection of its own."""
    done: Future[Answer] = Future()

    def run() -> None:
        try:
            done.set_result(act())
        except BaseException as error:
            done.set_exception(error)
        finally:
            connections.close_all()

    threading.Thread(target=run, daemon=True).start()
    return done


@contextmanager
def open_transaction(act: Callable[[], Answer]) -> Iterator[Answer]:
    """Do something elsewhere, in a transaction that stays open as long as the block."""
    acted: Future[Answer] = Future()
    may_commit = threading.Event()

    def hold() -> None:
        with transaction.atomic():
            try:
                acted.set_result(act())
            except BaseException as error:
                acted.set_exception(error)
            assert may_commit.wait(DEADLINE_SECONDS)

    held = elsewhere(hold)
    try:
        yield acted.result(DEADLINE_SECONDS)
    finally:
        may_commit.set()
        held.result(DEADLINE_SECONDS)


def somebody_waits_for_a_lock() -> bool:
    """Tell whether a connection is waiting for a lock of another."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        (waiting,) = cursor.fetchone()
    return bool(waiting)
