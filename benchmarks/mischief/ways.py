"""The ways in which a row may misbehave, each with the flavours of ops that know it and the ending it must have."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from alya_django import Row, RowFailed, Status

BATCH, ATOMIC, THREADS, COROUTINES = "batch", "atomic", "threads", "coroutines"
QUERY, ATOMIC_QUERY = "query", "atomic_query"
FLAVOURS = (BATCH, ATOMIC, THREADS, COROUTINES, QUERY, ATOMIC_QUERY)
TRANSACTIONS = (ATOMIC, ATOMIC_QUERY)
ALONE = (BATCH, ATOMIC, QUERY, ATOMIC_QUERY)
NO_LOOP = (*ALONE, THREADS)

SUCCESS = "success"
RAISED, DIED, TOO_LONG = "10", "11", "12"
GIL_SECONDS = 6
# As JSON 50 MB, and too much for one value of PostgreSQL.
ZEROS = 25_000_000


class Outlandish(BaseException):
    """What a library may raise that knows nothing of Exception."""


@dataclass(frozen=True)
class Way:
    """What a row does, the flavours of ops whose rows may do it, and how such a row must end."""

    act: Callable[[Row], Any]
    ending: str
    flavours: tuple[str, ...] = FLAVOURS


def throw(error: Callable[[], BaseException]) -> Callable[[Row], None]:
    """Return what raises an exception made anew for each row."""

    def act(row: Row) -> None:
        raise error()

    return act


def recurse(row: Row) -> None:
    """Go deeper until Python has had enough."""
    recurse(row)


def hold_gil(row: Row) -> None:
    """Keep every other thread of the process waiting, its heartbeat's too, for longer than a worker may be silent."""
    ctypes.PyDLL(None).sleep(GIL_SECONDS)


def lose_connection(row: Row) -> None:
    """Have the server end this connection, and notice."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def raise_after_commit(row: Row) -> None:
    """Succeed, and fail where nothing can be undone any more."""

    def fail() -> None:
        raise RuntimeError("too late")

    transaction.on_commit(fail)


def abort_itself(row: Row) -> None:
    """End the batch that the row is of."""
    from alya_django import batches

    batches.abort(row.batch_id)


WAYS: dict[str, Way] = {
    "fails": Way(throw(lambda: RowFailed("meant")), "0"),
    "error": Way(throw(lambda: ValueError("error")), RAISED),
    "memory": Way(throw(MemoryError), RAISED),
    "interrupt": Way(throw(KeyboardInterrupt), RAISED),
    "outlandish": Way(throw(Outlandish), RAISED),
    "cancelled": Way(throw(asyncio.CancelledError), RAISED),
    "generator exit": Way(throw(GeneratorExit), RAISED),
    "sys.exit": Way(throw(lambda: SystemExit(3)), RAISED),
    "recursion": Way(recurse, RAISED),
    "status": Way(lambda row: Status.FAILED, RAISED),
    "no JSON": Way(lambda row: object(), RAISED),
    "too large": Way(lambda row: [0] * ZEROS, RAISED, (BATCH, ATOMIC, QUERY)),
    "os._exit": Way(lambda row: os._exit(0), DIED),
    "segfault": Way(lambda row: ctypes.string_at(0), DIED),
    "kill": Way(lambda row: os.kill(os.getpid(), signal.SIGKILL), DIED),
    "hang": Way(lambda row: time.sleep(3_600), TOO_LONG),
    "GIL": Way(hold_gil, SUCCESS),
    "connection lost": Way(lose_connection, RAISED, (BATCH, THREADS, QUERY)),
    "connection lost in transaction": Way(lose_connection, DIED, TRANSACTIONS),
    "connection closed": Way(lambda row: connection.close(), SUCCESS, (BATCH, THREADS, QUERY)),
    "on_commit": Way(raise_after_commit, SUCCESS, TRANSACTIONS),
    "aborts itself": Way(abort_itself, RAISED, (ATOMIC,)),
}
