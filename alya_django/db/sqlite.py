"""How SQLite, the embedded database, does it: one writer at a time, so with neither gate nor row locks."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import itemgetter
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from alya_django.db.base import (
    CHARGE,
    CLAIM_ROWS,
    OTHER,
    TAKE_KEYS,
    Charge,
    Claimed,
    Database,
    RowEnding,
    added_errors,
)
from alya_django.status import Status

NOW = "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"

# The condition keeps the parser from taking ON for that of a join.
TAKE_KEYS_AT_ONCE = TAKE_KEYS.format(
    source="SELECT key, %s, value FROM JSON_EACH(%s) WHERE TRUE",
    now=NOW,
    since=NOW.replace("'NOW'", "'NOW', %s"),
)
CLAIM = CLAIM_ROWS.format(now=NOW, lock_free="", entered="", in_chosen="IN (SELECT id FROM chosen)")
CHARGE_BATCH = CHARGE.format(greatest="MAX", nrows="%(nrows)s", free="id = %(batch)s")
REFUSALS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class SQLite(Database):
    """The embedded database."""

    allows_many_writers = False

    def is_in_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        raw = connection.connection
        return super().is_in_transaction(connection) or (raw is not None and raw.in_transaction)

    def is_away(self, error: BaseException) -> bool:
        # Its errors of operation are those of statements too, such as a table that is missing.
        code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return super().is_away(error) and code != sqlite3.SQLITE_ERROR

    def is_deadlock(self, error: BaseException) -> bool:
        # Who writes is alone, from the beginning of the transaction.
        return False

    def is_refusal(self, error: BaseException) -> bool:
        return getattr(error.__cause__, "sqlite_errorcode", None) in REFUSALS

    def limit_lock_waits(self, seconds: float) -> None:
        """Do nothing: who writes is alone."""

    def notify(self) -> None:
        """Do nothing: nobody listens."""

    def listen(self) -> None:
        return None

    def keep_alive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def insert_rows(self, batch_id: UUID, rows: Iterable[tuple[int, str]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO alya_batchrows (batch_id, line, input) VALUES (%s, %s, %s)",
                [(batch_id.hex, line, text) for line, text in rows],
            )

    def take_keys(self, batch_id: UUID, keys: Mapping[str, int], *, days: int) -> set[int]:
        with self.connection.cursor() as cursor:
            cursor.execute(TAKE_KEYS_AT_ONCE, [batch_id.hex, json.dumps(keys), f"-{days} days"])
            return {line for (line,) in cursor}

    def claim_rows(
        self, batch_id: UUID, claim: int, done_by: str, *, wanted: int, after_line: int, charge: Charge
    ) -> Claimed:
        asked: dict[str, str | int] = {"batch": batch_id.hex, "claim": claim, "done_by": done_by}
        with self.transaction(), self.connection.cursor() as cursor:
            cursor.execute(CLAIM, asked | {"wanted": wanted, "after_line": after_line})
            rows = sorted(cursor, key=itemgetter(1))
            if rows:
                cursor.execute(CHARGE_BATCH, charge._asdict() | {"batch": batch_id.hex, "nrows": len(rows)})
        return Claimed(rows, True, True)

    def record_rows(self, batch_id: UUID, slot: int, claim: int, endings: Sequence[RowEnding]) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT id, retries FROM alya_batchrows WHERE claim = %s", [claim])
            held = dict(cursor.fetchall())
            kept = [ending for ending in endings if ending.row_id in held]
            cursor.executemany(
                "UPDATE alya_batchrows SET status = %s, result = %s, messages = %s, output_lines = %s, "
                f"claim = NULL, done_at = {NOW} WHERE id = %s",
                [(*ending[1:], ending.row_id) for ending in kept],
            )
        errors = Counter(_errcode(ending) for ending in kept if ending.status is Status.FAILED)
        if kept:
            nput_off = sum(held[ending.row_id] > 0 for ending in kept)
            self.count_rows(batch_id, slot, nsuccess=len(kept) - errors.total(), nput_off=-nput_off, errors=errors)
        return len(kept)

    def enter(self, batch_id: UUID) -> bool:
        return True

    def shut(self, batch_id: UUID) -> None:
        """Do nothing: who writes has the database to itself."""

    def server(self) -> tuple[int | None, str | None]:
        return None, None

    def tune(self) -> None:
        """Do nothing: the defaults are right."""

    def _add_errors(self, batch_id: UUID, errors: Mapping[str, int]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT counts FROM alya_batch_errors WHERE batch_id = %s", [batch_id.hex])
            (known,) = cursor.fetchone() or ("{}",)
            cursor.execute(
                "INSERT OR REPLACE INTO alya_batch_errors (batch_id, counts) VALUES (%s, %s)",
                [batch_id.hex, json.dumps(added_errors(json.loads(known), errors))],
            )


def _errcode(ending: RowEnding) -> str:
    """Return what a failed row is counted by."""
    messages = json.loads(ending.messages or "[]")
    return str(messages[0]["errcode"]) if messages else OTHER
