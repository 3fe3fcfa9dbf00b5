"""What Alya asks of a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, TypeVar
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet, UUIDField, Value

from alya_django.exceptions import AlyaError
from alya_django.status import Status

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


class TransactionLeftOpen(AlyaError):
    """User code has begun a transaction and not ended it."""


class RowEnding(NamedTuple):
    """How a row ended, ready to be stored: the JSON is text, None where there is nothing."""

    row_id: int
    status: Status
    result: str | None
    messages: str | None
    output_lines: str | None


class Database(ABC):
    """
    The statements on rows that are written by hand, because their speed is what Alya is for.

    The gate keeps an abort apart from those who change the same rows, which would deadlock it by the order
    of rows. Where there is one writer at a time it is always open.
    """

    allows_many_writers: ClassVar[bool]

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
        Return a call of user code that leaves the connection as it found it.

        A worker has no transaction open: what user code leaves open is rolled back, and is an error of that code.
        Connections that an error of it has made unusable are closed, those to other databases too. Inside a TestCase
        there is one: there each call gets a savepoint, so that a failing statement does not spoil the test's
        transaction.
        """
        connection = self.connection

        def call_in_savepoint(argument: Argument) -> Answer:
            with self.transaction():
                return call(argument)

        def call_and_look(argument: Argument) -> Answer:
            nonlocal connection
            try:
                return call(argument)
            except BaseException:
                self._drop_broken_connections()
                raise
            finally:
                if self.is_in_transaction(connection):
                    connection = self._start_afresh()
                    raise TransactionLeftOpen("A transaction was left open; it was rolled back.")

        return call_in_savepoint if connection.in_atomic_block else call_and_look

    def has_open_transaction(self) -> bool:
        """Return whether what is read now may never be committed."""
        return self.is_in_transaction(self.connection)

    def is_in_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether a connection has a transaction open; asked after every row, so without a statement."""
        return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)

    def after_commit(self, act: Callable[[], None]) -> None:
        """Act once the caller's transaction is committed; what then fails is logged and fails nothing else."""
        transaction.on_commit(act, using=self.alias, robust=True)

    @abstractmethod
    def insert_rows(self, batch_id: UUID, rows: Iterable[tuple[int, str]]) -> None:
        """
        Insert rows given as (line, input as JSON text); the other columns take their defaults.

        The rows must not ask the same connection for anything.
        """

    def copy_rows(self, batch_id: UUID, rows: QuerySet[Any]) -> int:
        """Give a batch the lines and inputs of rows of others, as they are stored, and return how many."""
        chosen = rows.values_list(Value(batch_id, output_field=UUIDField()), "line", "input")
        select, parameters = chosen.query.get_compiler(self.alias).as_sql()
        with self.connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO alya_batchrows (batch_id, line, input) {select}", parameters)
            return int(cursor.rowcount)

    @abstractmethod
    def record_rows(self, claim: int, endings: Sequence[RowEnding]) -> set[int]:
        """
        End those rows that the claim still holds, return their ids, and leave the others alone.

        It must run in a transaction.
        """

    @abstractmethod
    def enter(self, batch_id: UUID) -> bool:
        """Pass the gate of a batch, beside others, until the transaction ends; False while it is shut."""

    @abstractmethod
    def shut(self, batch_id: UUID) -> None:
        """Shut the gate of a batch until the transaction ends, once all who passed it have gone through."""

    @abstractmethod
    def server(self) -> tuple[int | None, str | None]:
        """Return the server's version, as a number, and its default isolation level; None where there is none."""

    @abstractmethod
    def tune(self) -> None:
        """Set what the tables need beyond Django's migrations."""

    def _start_afresh(self) -> BaseDatabaseWrapper:
        """Throw the connection away, with whatever was made of it, and return a new one."""
        self.connection.close()
        # A wrapper that was closed inside a transaction stays there; the next one knows nothing of it.
        del connections[self.alias]
        return self.connection

    def _drop_broken_connections(self) -> None:
        """Close the connections of this thread that an error has made unusable, as Django does between requests."""
        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred and not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
