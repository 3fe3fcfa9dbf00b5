"""What PostgreSQL does better: COPY, one UPDATE for a whole chunk, advisory locks."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from alya_django.db.base import Database, RowEnding


class PostgreSQL(Database):
    """The reference database."""

    def insert_rows(self, batch_id: UUID, rows: Sequence[tuple[int, str]]) -> None:
        # JSON text holds no tab and no newline, so the backslash is all that COPY's own format needs escaped.
        block = "".join(f"{batch_id}\t{line}\t{text}\n" for line, text in rows)
        with (
            self.connection.wrap_database_errors,
            self.connection.cursor() as cursor,
            cursor.copy("COPY alya_batchrows (batch_id, line, input) FROM STDIN") as copy,
        ):
            copy.write(block.replace("\\", "\\\\"))

    def record_rows(self, claim: int, endings: Sequence[RowEnding]) -> set[int]:
        # Guarded by the id alone this turns into a sequential scan past 500 rows; the indexed claim is the guard.
        ids, statuses, results, messages, output_lines = (list(column) for column in zip(*endings, strict=True))
        with self.connection.cursor() as cursor:
            cursor.execute(
                "UPDATE alya_batchrows AS r SET status = v.status, result = v.result, messages = v.messages, "
                "output_lines = v.output_lines, claim = NULL, done_at = STATEMENT_TIMESTAMP() "
                "FROM UNNEST(%s::bigint[], %s::text[], %s::jsonb[], %s::jsonb[], %s::jsonb[]) "
                "AS v (id, status, result, messages, output_lines) "
                "WHERE r.id = v.id AND r.claim = %s RETURNING r.id",
                [ids, [str(status) for status in statuses], results, messages, output_lines, claim],
            )
            return {row_id for (row_id,) in cursor}

    def enter(self, batch_id: UUID) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT PG_TRY_ADVISORY_XACT_LOCK_SHARED(%s)", [_gate(batch_id)])
            (entered,) = cursor.fetchone()
        return bool(entered)

    def shut(self, batch_id: UUID) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT PG_ADVISORY_XACT_LOCK(%s)", [_gate(batch_id)])

    def tune(self) -> None:
        # At the default of 20 % a large table would be vacuumed only after millions of dead rows.
        with self.connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE alya_batchrows "
                "SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
            )


def _gate(batch_id: UUID) -> int:
    """Return the key of a batch's advisory lock: the first half of its id, as a signed 64-bit number."""
    return int.from_bytes(batch_id.bytes[:8], signed=True)
