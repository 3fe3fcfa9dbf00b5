"""What Alya asks of a database, and how the embedded one, SQLite, does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet, UUIDField, Value

from alya_django.status import Status

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


class RowEnding(NamedTuple):
    """How a row ended, ready to be stored: the JSON is text, None where there is nothing."""

    row_id: int
    status: Status
    result: str | None
    messages: str | None
    output_lines: str | None


class Database:
    """
    The statements on rows that are written by hand, because their speed is what Alya is for.

    The gate keeps an abort apart from those who change the same rows, which would deadlock it by the order
    of rows. Where there is one writer at a time, as on SQLite, it is always open.
    """

    allows_many_writers = False

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction, or a savepoint inside the caller's."""
        return transaction.atomic(using=self.alias)

    def guarded(self, call: Callable[[Argument], Answer]) -> Callable[[Argument], Answer]:
        """
        Return a call of user code whose failing statements do not spoil the caller's transaction.

        A worker has none: user code runs in autocommit, and the call is returned as it is. Inside a TestCase there
        is one, and each call gets a savepoint.
        """
        if not self.connection.in_atomic_block:
            return call

        def call_in_savepoint(argument: Argument) -> Answer:
            with self.transaction():
                return call(argument)

        return call_in_savepoint

    def after_commit(self, act: Callable[[], None]) -> None:
        """Act once the caller's transaction is committed; what then fails is logged and fails nothing else."""
        transaction.on_commit(act, using=self.alias, robust=True)

    def insert_rows(self, batch_id: UUID, rows: Iterable[tuple[int, str]]) -> None:
        """
        Insert rows given as (line, input as JSON text); the other columns take their defaults.

        The rows must not ask the same connection for anything.
        """
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO alya_batchrows (batch_id, line, input) VALUES (%s, %s, %s)",
                [(batch_id.hex, line, text) for line, text in rows],
            )

    def copy_rows(self, batch_id: UUID, rows: QuerySet[Any]) -> int:
        """Give a batch the lines and inputs of rows of others, as they are stored, and return how many."""
        chosen = rows.values_list(Value(batch_id, output_field=UUIDField()), "line", "input")
        select, parameters = chosen.query.get_compiler(self.alias).as_sql()
        with self.connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO alya_batchrows (batch_id, line, input) {select}", parameters)
            return int(cursor.rowcount)

    def record_rows(self, claim: int, endings: Sequence[RowEnding]) -> set[int]:
        """
        End those rows that the claim still holds, return their ids, and leave the others alone.

        It must run in a transaction.
        """
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT id FROM alya_batchrows WHERE claim = %s", [claim])
            held = {row_id for (row_id,) in cursor}
            kept = [ending for ending in endings if ending.row_id in held]
            cursor.executemany(
                "UPDATE alya_batchrows SET status = %s, result = %s, messages = %s, output_lines = %s, "
                "claim = NULL, done_at = STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW') WHERE id = %s",
                [(*ending[1:], ending.row_id) for ending in kept],
            )
        return {ending.row_id for ending in kept}

    def enter(self, batch_id: UUID) -> bool:
        """Pass the gate of a batch, beside others, until the transaction ends; False while it is shut."""
        return True

    def shut(self, batch_id: UUID) -> None:
        """Shut the gate of a batch until the transaction ends, once all who passed it have gone through."""

    def server(self) -> tuple[int | None, str | None]:
        """Return the server's version, as a number, and its default isolation level; None where there is none."""
        return None, None

    def tune(self) -> None:
        """Set what the tables need beyond Django's migrations."""
