"""What PostgreSQL does better: COPY, one UPDATE for a whole chunk, advisory locks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from psycopg.pq import TransactionStatus

from alya_django.conf import settings
from alya_django.db.base import (
    CHARGE,
    CLAIM_ROWS,
    COUNT_ROWS,
    ERRCODES_MAX,
    OTHER,
    TAKE_KEYS,
    Charge,
    Claimed,
    Database,
    Listener,
    RowEnding,
    added_errors,
)
from alya_django.status import Status

# Small enough for the server to store a piece while the next is made, large enough to be worth a system call.
PIECE_ROWS = 250
PIECES_MAX = 1_000

# Rows that others have locked are theirs: waiting for them would queue the workers up behind each other.
LOCK_FREE = "FOR UPDATE SKIP LOCKED"
# The gate is passed and the batch charged on the way, to save the time to ask. A row that was aborted after this
# statement began to look, and before it passed the gate, is seen to have changed when it is locked. The rows to update
# are made an array first: joined with the chosen the planner might read the whole table.
CLAIM_AND_CHARGE = """
    WITH gate AS MATERIALIZED (
        SELECT PG_TRY_ADVISORY_XACT_LOCK_SHARED(%(gate)s) AS entered
    ), claimed AS ({claim}), charged AS ({charge} AND EXISTS (SELECT 1 FROM claimed) RETURNING 1)
    SELECT gate.entered, EXISTS (SELECT 1 FROM charged), claimed.* FROM gate LEFT JOIN claimed ON TRUE
    ORDER BY claimed.line
""".format(
    claim=CLAIM_ROWS.format(
        now="STATEMENT_TIMESTAMP()",
        lock_free=LOCK_FREE,
        entered="AND (SELECT entered FROM gate)",
        in_chosen="= ANY(ARRAY(SELECT id FROM chosen))",
    ),
    charge=CHARGE.format(
        greatest="GREATEST",
        nrows="(SELECT COUNT(*) FROM claimed)",
        free="id = (SELECT id FROM alya_batches WHERE id = %(batch)s FOR NO KEY UPDATE SKIP LOCKED)",
    ),
)
# Guarded by the id alone this turns into a sequential scan past 500 rows; the indexed claim is the guard.
# Texts to be split are cheaper to send than arrays.
RECORD_ROWS = (
    """
    WITH ended AS (
        UPDATE alya_batchrows AS r
        SET status = v.status, result = v.result, messages = v.messages, output_lines = v.output_lines,
            claim = NULL, done_at = STATEMENT_TIMESTAMP()
        FROM UNNEST(
            STRING_TO_ARRAY(%s, ',')::bigint[],
            STRING_TO_ARRAY(%s, ','),
            STRING_TO_ARRAY(%s, E'\n', '')::jsonb[],
            STRING_TO_ARRAY(%s, E'\n', '')::jsonb[],
            STRING_TO_ARRAY(%s, E'\n', '')::jsonb[]
        ) AS v (id, status, result, messages, output_lines)
        WHERE r.id = v.id AND r.claim = %s
        RETURNING r.status, r.retries{errcode}
    ), counted AS ("""
    + COUNT_ROWS.format(
        source="""
        SELECT %s, %s, COUNT(*) FILTER (WHERE status = 'success'), COUNT(*) FILTER (WHERE status = 'failed'),
            -COUNT(*) FILTER (WHERE retries > 0)
        FROM ended HAVING COUNT(*) > 0"""
    )
    + """)
    SELECT {counts} FROM ended {grouped}
"""
)
RECORD_SUCCESSES = RECORD_ROWS.format(errcode="", counts="NULL, COUNT(*)", grouped="")
RECORD_FAILURES = RECORD_ROWS.format(
    errcode=", CASE r.status WHEN 'failed' THEN COALESCE(r.messages -> 0 ->> 'errcode', '') END AS errcode",
    counts="errcode, COUNT(*)",
    grouped="GROUP BY errcode",
)
# As added_errors says: the codes that the record has stay, and new ones come in while there is room. It looks at the
# latest version of the record, for which it has waited.
ADD_ERRORS = f"""
    INSERT INTO alya_batch_errors AS e (batch_id, counts) VALUES (%s, %s::jsonb)
    ON CONFLICT (batch_id) DO UPDATE SET counts = (
        SELECT JSONB_OBJECT_AGG(kept, count) FROM (
            SELECT CASE WHEN place <= {ERRCODES_MAX} THEN errcode ELSE '{OTHER}' END AS kept, SUM(count) AS count
            FROM (
                SELECT key AS errcode, SUM(value::bigint) AS count,
                    ROW_NUMBER() OVER (PARTITION BY key = '{OTHER}' ORDER BY NOT e.counts ? key, key) AS place
                FROM (
                    SELECT * FROM JSONB_EACH_TEXT(e.counts) UNION ALL SELECT * FROM JSONB_EACH_TEXT(%s)
                ) AS all_counts
                GROUP BY key
            ) AS placed
            GROUP BY kept
        ) AS summed
    )
"""
TAKE_KEYS_AT_ONCE = TAKE_KEYS.format(
    # In one order, so that two files that have keys in common wait for each other and seldom meet in a deadlock.
    source="""
        SELECT digest, %s, line FROM UNNEST(STRING_TO_ARRAY(%s, ',')::uuid[], STRING_TO_ARRAY(%s, ',')::int[])
            AS n (digest, line)
        ORDER BY digest""",
    now="STATEMENT_TIMESTAMP()",
    since="STATEMENT_TIMESTAMP() - MAKE_INTERVAL(days => %s)",
)
CHANNEL = "alya"

# Both ends notice within 25 s that the other has vanished without a word.
ALERT = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
SERVER_ALERT = (
    "SELECT SET_CONFIG('tcp_keepalives_idle', '10', FALSE), SET_CONFIG('tcp_keepalives_interval', '5', FALSE), "
    "SET_CONFIG('tcp_keepalives_count', '3', FALSE), SET_CONFIG('tcp_user_timeout', '20000', FALSE)"
)

OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
# A deadlock, a serialization failure.
DEADLOCKS = frozenset({"40P01", "40001"})
# Also a lock that was waited for as long as the project wants to wait.
REFUSALS = DEADLOCKS | {"55P03"}


class PostgreSQL(Database):
    """The reference database."""

    allows_many_writers = True

    def is_in_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        raw = connection.connection
        return connection.in_atomic_block or (
            raw is not None and (not connection.autocommit or raw.pgconn.transaction_status in OPEN)
        )

    def notify(self) -> None:
        if settings.LISTEN:
            self.after_commit(self._notify)

    def listen(self) -> Listener:
        parameters = {**ALERT, **self.connection.get_connection_params(), "autocommit": True}
        try:
            return _Listener(psycopg.connect(**parameters))
        except psycopg.Error as error:
            raise ConnectionError(str(error)) from error

    @contextmanager
    def keep_alive(self) -> Iterator[None]:
        # The options of libpq are for this end of a connection, and those that the project has set stay. The other
        # end has parameters of its own, and may hold locks of a worker whose host is gone. They are set by a
        # statement: a pooler refuses to pass on what it does not know when a connection begins.
        connected = self.connection.settings_dict
        options = connected["OPTIONS"]
        connected["OPTIONS"] = {**ALERT, **options}
        connection_created.connect(self._keep_server_alive)
        try:
            yield
        finally:
            connection_created.disconnect(self._keep_server_alive)
            connected["OPTIONS"] = options

    def is_deadlock(self, error: BaseException) -> bool:
        return getattr(error.__cause__, "sqlstate", None) in DEADLOCKS

    def is_refusal(self, error: BaseException) -> bool:
        return getattr(error.__cause__, "sqlstate", None) in REFUSALS

    def limit_lock_waits(self, seconds: float) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT SET_CONFIG('lock_timeout', %s, TRUE) WHERE CURRENT_SETTING('lock_timeout') = '0'",
                [f"{seconds * 1000:.0f}ms"],
            )

    def insert_rows(self, batch_id: UUID, rows: Iterable[tuple[int, str]]) -> None:
        start = f"{batch_id}\t"
        texts = (f"{start}{line}\t{text}\n" for line, text in rows)
        with (
            self.connection.wrap_database_errors,
            self.connection.cursor() as cursor,
            cursor.copy("COPY alya_batchrows (batch_id, line, input) FROM STDIN") as copy,
        ):
            while piece := "".join(islice(texts, PIECE_ROWS)):
                # JSON text holds no tab and no newline: the backslash is all that COPY's own format needs escaped.
                copy.write(piece.replace("\\", "\\\\"))

    def take_keys(self, batch_id: UUID, keys: Mapping[str, int], *, days: int) -> set[int]:
        with self.connection.cursor() as cursor:
            cursor.execute(TAKE_KEYS_AT_ONCE, [batch_id, ",".join(keys), ",".join(map(str, keys.values())), days])
            return {line for (line,) in cursor}

    def claim_rows(
        self, batch_id: UUID, claim: int, done_by: str, *, wanted: int, after_line: int, charge: Charge
    ) -> Claimed:
        parameters = {
            "gate": _gate(batch_id),
            "batch": batch_id,
            "claim": claim,
            "done_by": done_by,
            "wanted": wanted,
            "after_line": after_line,
            **charge._asdict(),
        }
        with self.connection.cursor() as cursor:
            cursor.execute(CLAIM_AND_CHARGE, parameters)
            found = cursor.fetchall()
        has_entered, is_charged, *_ = found[0]
        # Of the gate alone the rest is null.
        return Claimed([row for _, _, *row in found if row[0] is not None], has_entered, is_charged)

    def record_rows(self, batch_id: UUID, slot: int, claim: int, endings: Sequence[RowEnding]) -> int:
        ids, statuses, *texts = zip(*endings, strict=True)
        with self.connection.cursor() as cursor:
            cursor.execute(
                RECORD_FAILURES if Status.FAILED in statuses else RECORD_SUCCESSES,
                [
                    ",".join(map(str, ids)),
                    ",".join(statuses),
                    *map(_lines, texts),
                    claim,
                    batch_id,
                    slot,
                ],
            )
            ended = dict(cursor)
        nsuccess = ended.pop(None, 0)
        self._count_errors(batch_id, ended)
        return int(nsuccess + sum(ended.values()))

    def enter(self, batch_id: UUID) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT PG_TRY_ADVISORY_XACT_LOCK_SHARED(%s)", [_gate(batch_id)])
            (entered,) = cursor.fetchone()
        return bool(entered)

    def shut(self, batch_id: UUID) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT PG_ADVISORY_XACT_LOCK(%s)", [_gate(batch_id)])

    def server(self) -> tuple[int | None, str | None]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT CURRENT_SETTING('server_version_num')::int, CURRENT_SETTING('transaction_isolation')"
            )
            version, level = cursor.fetchone()
        return version, level

    def tune(self) -> None:
        # At the default of 20 % a large table would be vacuumed only after millions of dead rows.
        with self.connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE alya_batchrows "
                "SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
            )

    def _add_errors(self, batch_id: UUID, errors: Mapping[str, int]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(ADD_ERRORS, [batch_id, json.dumps(added_errors({}, errors)), json.dumps(errors)])

    def _notify(self) -> None:
        # A statement of its own: inside a transaction it would make every commit of the server wait for the other.
        with self.connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")

    def _keep_server_alive(self, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        # Behind a pooler in transaction mode the other end is the pooler's, and what is set would stay with it.
        if connection.alias == self.alias and settings.LISTEN:
            with connection.cursor() as cursor:
                cursor.execute(SERVER_ALERT)


class _Listener:
    """A connection that LISTENs."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute(SERVER_ALERT)
        connection.execute(f"LISTEN {CHANNEL}")

    def fileno(self) -> int:
        return self._connection.fileno()

    def drain(self) -> bool:
        # What is not read fills the server's queue, which is one for all; whoever floods it is not read for ever.
        pieces = 0
        while pieces < PIECES_MAX and self._take_piece():
            pieces += 1
        return pieces > 0

    def _take_piece(self) -> bool:
        """Take in what has come, up to the size of libpq's buffer, and return whether there was any news."""
        has_news = False
        try:
            self._connection.pgconn.consume_input()
        except psycopg.Error as error:
            raise ConnectionError(str(error)) from error
        while self._connection.pgconn.notifies() is not None:
            has_news = True
        return has_news

    def close(self) -> None:
        self._connection.close()


def _lines(texts: Sequence[str | None]) -> str | None:
    """Return JSON texts as the lines of one, None if there are none: compact JSON has no newline."""
    return "\n".join(text or "" for text in texts) if any(texts) else None


def _gate(batch_id: UUID) -> int:
    """Return the key of a batch's advisory lock: the first half of its id, as a signed 64-bit number."""
    return int.from_bytes(batch_id.bytes[:8], signed=True)
