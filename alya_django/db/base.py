"""What Alya asks of a database."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet, UUIDField, Value

from alya_django.exceptions import AlyaError
from alya_django.status import Status
from alya_django.validation import TEXT_MAX

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")

AGAIN_TIMES = 3
# A batch's failures are told apart by so many errcodes; those of all others are counted under OTHER.
ERRCODES_MAX = 200
OTHER = ""
NO_ERRORS: Mapping[str, int] = MappingProxyType({})
AGAIN_SECONDS = 0.02

# Due rows go first, in the order in which they fell due. One whose worker has died goes alone: the rows before it
# are claimed without it, it is claimed without the rows behind it, and none waits for ever.
# Each part repeats that the batch is running: it may have ended, or been held, since it was chosen.
CLAIM_ROWS = """
    WITH due AS MATERIALIZED (
        SELECT id, line, retry_at, lost FROM alya_batchrows
        WHERE batch_id = %(batch)s AND status = 'queued' AND retry_at <= {now}
            AND EXISTS (SELECT 1 FROM alya_batches WHERE id = %(batch)s AND status = 'inprog' AND held_at IS NULL)
            {entered}
        ORDER BY retry_at, line LIMIT %(wanted)s {lock_free}
    ), never_claimed AS MATERIALIZED (
        SELECT id FROM alya_batchrows
        WHERE batch_id = %(batch)s AND status = 'queued' AND retry_at IS NULL AND line > %(after_line)s
            AND EXISTS (SELECT 1 FROM alya_batches WHERE id = %(batch)s AND status = 'inprog' AND held_at IS NULL)
            AND NOT EXISTS (SELECT 1 FROM due)
            {entered}
        ORDER BY line LIMIT %(wanted)s {lock_free}
    ), chosen AS (
        SELECT id FROM (
            SELECT id, ROW_NUMBER() OVER in_order AS place, SUM(lost) OVER in_order AS losses
            FROM due WINDOW in_order AS (ORDER BY retry_at, line)
        ) AS counted WHERE place = 1 OR losses = 0
        UNION ALL SELECT id FROM never_claimed
    )
    UPDATE alya_batchrows
    SET status = 'inprog', claim = %(claim)s, attempts = attempts + 1, claimed_at = {now}, done_by = %(done_by)s,
        retry_at = NULL
    WHERE id {in_chosen}
    RETURNING id, line, CAST(input AS text) AS input, attempts, lost + retries AS strikes
"""
# The start tag of start-time fair queueing (Goyal, Vin and Cheng 1996): it moves by the time that the rows will take.
CHARGE = """
    UPDATE alya_batches
    SET turn = {greatest}(turn, %(turn)s) + (%(owed)s + %(row_seconds)s * {nrows}) / {greatest}(weight, 1e-6)
    WHERE {free}
"""
COUNT_ROWS = """
    INSERT INTO alya_batch_progress AS p (batch_id, slot, nsuccess, nfailed, nput_off) {source}
    ON CONFLICT (batch_id, slot)
    DO UPDATE SET
        nsuccess = p.nsuccess + EXCLUDED.nsuccess, nfailed = p.nfailed + EXCLUDED.nfailed,
        nput_off = p.nput_off + EXCLUDED.nput_off,
        moved_at = CASE WHEN EXCLUDED.nsuccess + EXCLUDED.nfailed > 0 THEN EXCLUDED.moved_at ELSE p.moved_at END
"""


# A key whose days are over is taken over; within one batch none is.
TAKE_KEYS = """
    INSERT INTO alya_business_keys AS k (digest, batch_id, line) {source}
    ON CONFLICT (digest) DO UPDATE SET batch_id = EXCLUDED.batch_id, line = EXCLUDED.line, received_at = {now}
    WHERE k.received_at < {since} AND k.batch_id <> EXCLUDED.batch_id
    RETURNING line
"""


class TransactionLeftOpen(AlyaError):
    """User code has begun a transaction and not ended it."""


class Charge(NamedTuple):
    """
    What a claim costs its batch in turn: the seconds that each row will take, and those owed for earlier ones.

    The batch begins at ``turn`` if it has fallen behind.
    """

    turn: float
    row_seconds: float
    owed: float


class Claimed(NamedTuple):
    """
    What a claim got: rows as their id, line, input as JSON text, attempts with this one, and strikes.

    A strike is a worker that died or another try asked for. Nothing is got where the gate is shut; a batch that
    somebody has locked is not charged.
    """

    rows: list[tuple[int, int, str, int, int]]
    has_entered: bool
    is_charged: bool


class RowEnding(NamedTuple):
    """How a row ended, ready to be stored: the JSON is text, None where there is nothing."""

    row_id: int
    status: Status
    result: str | None
    messages: str | None
    output_lines: str | None


def added_errors(known: Mapping[str, int], errors: Mapping[str, int]) -> dict[str, int]:
    """Return failures by errcode with others added; those for whose errcode there is no room are under OTHER."""
    kept = known.keys() - {OTHER}
    kept |= set(sorted(errors.keys() - kept - {OTHER})[: ERRCODES_MAX - len(kept)])
    return _counted(known, errors, kept.__contains__)


class Listener(Protocol):
    """What hears that there may be work; readable like a file when there is news."""

    def fileno(self) -> int: ...

    def drain(self) -> bool:
        """Take in all news so far and return whether there were any; raise OSError if the connection is lost."""

    def close(self) -> None: ...


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

    def again(self, act: Callable[[], Answer]) -> Answer:
        """
        Act, in transactions of its own, and where one meets a deadlock begin anew, three times at most.

        Inside the caller's transaction it cannot: what the caller has done before is gone with it, so the error is
        the caller's. The act must bear to be done again, and read nothing that can be read only once.
        """
        if self.has_open_transaction():
            return act()
        for _ in range(AGAIN_TIMES):
            try:
                return act()
            except DatabaseError as error:
                if not self.is_deadlock(error):
                    raise
            # Those who have met should not meet again.
            time.sleep(random.uniform(0, AGAIN_SECONDS))
        return act()

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
                self.drop_broken_connections()
                raise
            finally:
                if self.is_in_transaction(connection):
                    connection = self._start_afresh()
                    raise TransactionLeftOpen("A transaction was left open; it was rolled back.")

        return call_in_savepoint if connection.in_atomic_block else call_and_look

    def drop_broken_connections(self) -> None:
        """Close the connections of this thread that an error has made unusable, as Django does between requests."""
        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred and not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()

    def has_open_transaction(self) -> bool:
        """Return whether what is read now may never be committed."""
        return self.is_in_transaction(self.connection)

    def is_in_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether a connection has a transaction open; asked after every row, so without a statement."""
        return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)

    def after_commit(self, act: Callable[[], None]) -> None:
        """Act once the caller's transaction is committed; what then fails is logged and fails nothing else."""
        transaction.on_commit(act, using=self.alias, robust=True)

    def is_away(self, error: BaseException) -> bool:
        """Return whether an error tells of a database that does not answer just now, rather than of a statement."""
        return isinstance(error, OperationalError | InterfaceError)

    @abstractmethod
    def is_deadlock(self, error: BaseException) -> bool:
        """Return whether the database has undone one of several transactions that were in each other's way."""

    @abstractmethod
    def is_refusal(self, error: BaseException) -> bool:
        """Return whether the database has refused for the sake of others, so that the same may go through later."""

    @abstractmethod
    def limit_lock_waits(self, seconds: float) -> None:
        """Have the open transaction refused if it waits so long for a lock, unless the project has set a limit."""

    def reopen(self) -> None:
        """Close the connection and make a new one; raise what the database raises."""
        self.connection.close()
        self.connection.ensure_connection()

    @abstractmethod
    def notify(self) -> None:
        """
        Wake the workers that listen, once the caller's transaction is committed, unless the project does without.

        Nothing depends on it: who was not woken looks by itself after POLL_SECONDS.
        """

    @abstractmethod
    def listen(self) -> Listener | None:
        """Return what hears ``notify``, on a connection of its own; None where there is no such thing."""

    @abstractmethod
    def keep_alive(self) -> AbstractContextManager[None]:
        """
        Have both ends of this process's new connections miss the other one soon after it has vanished.

        A worker does so while it lives: nobody sits beside it to see that it hangs.
        """

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
    def take_keys(self, batch_id: UUID, keys: Mapping[str, int], *, days: int) -> set[int]:
        """
        Give the rows of a batch their business keys, as far as no other row has had them for so many days or less.

        Args:
            keys: The line that wants a key, by the 32 hex digits of its digest.

        Returns:
            The lines that got theirs.
        """

    @abstractmethod
    def claim_rows(
        self, batch_id: UUID, claim: int, done_by: str, *, wanted: int, after_line: int, charge: Charge
    ) -> Claimed:
        """
        Claim rows of a running batch that nobody else has locked, in the order of lines, and charge it for them.

        Those that are due go first, else those never claimed behind a line. Nobody waits for a lock.
        """

    def prepared(self, query: QuerySet[Any, Any]) -> Callable[[], list[Any]]:
        """Return what asks a query of values again and again: its SQL, which costs more to write than to run, once."""
        compiler = query.query.get_compiler(self.alias)
        sql, parameters = compiler.as_sql()
        converters = compiler.get_converters([column for column, *_ in compiler.select])

        def ask() -> list[Any]:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return list(compiler.apply_converters(cursor.fetchall(), converters))

        return ask

    def prepared_exists(self, queries: Iterable[QuerySet[Any, Any]]) -> Callable[[], list[bool]]:
        """Return what asks in one statement, again and again, which of some queries find anything."""
        # One that can find nothing is asked, too: its answer keeps its place.
        asked = [query.query.exists().get_compiler(self.alias, elide_empty=False).as_sql() for query in queries]
        sql = f"SELECT {', '.join(f'EXISTS ({part})' for part, _ in asked)}"
        parameters = [parameter for _, of_part in asked for parameter in of_part]

        def ask() -> list[bool]:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return list(map(bool, cursor.fetchone()))

        return ask

    @abstractmethod
    def record_rows(self, batch_id: UUID, slot: int, claim: int, endings: Sequence[RowEnding]) -> int:
        """
        End those rows that the claim still holds, count them in the slot, and return how many; leave the others alone.

        It must run in a transaction.
        """

    def count_rows(
        self, batch_id: UUID, slot: int, *, nsuccess: int = 0, nput_off: int = 0, errors: Mapping[str, int] = NO_ERRORS
    ) -> None:
        """
        Count rows that end in this transaction, those that fail by the errcode of their first message.

        Args:
            nput_off: So many more rows were put off and have not ended; fewer where it is below 0.
        """
        counts = [self._stored(batch_id), slot, nsuccess, sum(errors.values()), nput_off]
        with self.connection.cursor() as cursor:
            cursor.execute(COUNT_ROWS.format(source="VALUES (%s, %s, %s, %s, %s)"), counts)
        self._count_errors(batch_id, errors)

    def is_complete(self, batch_id: UUID) -> bool:
        """Return whether a batch is running and all its rows have ended; asked after every chunk."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT nrows = (SELECT SUM(nsuccess + nfailed) FROM alya_batch_progress WHERE batch_id = b.id) "
                "FROM alya_batches AS b WHERE id = %s AND status = 'inprog'",
                [self._stored(batch_id)],
            )
            is_complete = cursor.fetchone()
        return is_complete is not None and bool(is_complete[0])

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

    def _count_errors(self, batch_id: UUID, errors: Mapping[str, int]) -> None:
        """
        Add to what a batch's failures are counted by.

        Last in its transaction: who fails rows of a batch waits here for another's commit, and nobody for more.
        """
        if errors:
            self._add_errors(batch_id, _counted({}, errors, lambda errcode: len(errcode) <= TEXT_MAX))

    @abstractmethod
    def _add_errors(self, batch_id: UUID, errors: Mapping[str, int]) -> None:
        """Add failures to a batch's record as ``added_errors`` says, and make the record if there is none."""

    def _stored(self, value: UUID) -> UUID | str:
        """Return an id as its column has it."""
        return value if self.connection.features.has_native_uuid_field else value.hex

    def _start_afresh(self) -> BaseDatabaseWrapper:
        """Throw the connection away, with whatever was made of it, and return a new one."""
        self.connection.close()
        # A wrapper that was closed inside a transaction stays there; the next one knows nothing of it.
        del connections[self.alias]
        return self.connection


def _counted(known: Mapping[str, int], errors: Mapping[str, int], is_kept: Callable[[str], bool]) -> dict[str, int]:
    counts = Counter(known)
    for errcode, count in errors.items():
        counts[errcode if is_kept(errcode) else OTHER] += count
    return counts
