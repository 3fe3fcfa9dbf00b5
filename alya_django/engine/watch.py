"""What a worker shows of itself to the process that supervises it, in memory that both share."""

from __future__ import annotations

import mmap
import struct
import time

from alya_django.options import CONCURRENCY_MAX

# Native ones are written in one piece: who reads while they are written, or after a kill, reads the old or the new.
HEAD = struct.Struct("@qqq")
TIMES = struct.Struct("@dd")
ROW = struct.Struct("@q")
SLOT_BYTES = ROW.size + TIMES.size


class NoWatch:
    """Nobody watches: rows may take as long as they like."""

    def register(self, number: int) -> None:
        """Show the worker's number, which is in all its claims."""

    def count(self, rows: int) -> None:
        """Show that rows have ended."""

    def begin(self, slot: int, row_id: int, limit: float) -> None:
        """Show that a row has begun that may take ``limit`` seconds."""

    def end(self, slot: int) -> None:
        """Show that the row of a slot has ended."""


NO_WATCH = NoWatch()


class Watch(NoWatch):
    """
    The memory of one worker, made before the fork.

    A row that is shown has its times already: the id, which makes the slot count, is written last. The clock is the
    one that all processes of a machine share.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, HEAD.size + CONCURRENCY_MAX * SLOT_BYTES)

    @property
    def number(self) -> int:
        """The worker's number, 0 before it has one."""
        return int(HEAD.unpack_from(self._memory)[0])

    @property
    def rows(self) -> int:
        """How many rows have ended."""
        return int(HEAD.unpack_from(self._memory)[1])

    @property
    def has_left(self) -> bool:
        """Whether the worker has come to its own end: a process may be ended by a row, and with any exit code."""
        return bool(HEAD.unpack_from(self._memory)[2])

    def register(self, number: int) -> None:
        self._show(number, self.rows)

    def count(self, rows: int) -> None:
        self._show(self.number, self.rows + rows)

    def leave(self) -> None:
        """Show that the worker has come to its own end."""
        self._show(self.number, self.rows, has_left=True)

    def begin(self, slot: int, row_id: int, limit: float) -> None:
        at = HEAD.size + slot * SLOT_BYTES
        TIMES.pack_into(self._memory, at + ROW.size, time.monotonic() + limit, limit)
        ROW.pack_into(self._memory, at, row_id)

    def end(self, slot: int) -> None:
        ROW.pack_into(self._memory, HEAD.size + slot * SLOT_BYTES, 0)

    def overdue(self, now: float) -> dict[int, float]:
        """Return the rows that have gone on for longer than they may, each with its limit in seconds."""
        return {row_id: limit for row_id, deadline, limit in self._running() if deadline <= now}

    def next_deadline(self) -> float | None:
        """Return when the first of the rows that are running will have taken too long; None without any."""
        return min((deadline for _, deadline, _ in self._running()), default=None)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    def _show(self, number: int, rows: int, *, has_left: bool = False) -> None:
        HEAD.pack_into(self._memory, 0, number, rows, has_left)

    def _running(self) -> list[tuple[int, float, float]]:
        slots = struct.iter_unpack("@qdd", self._memory[HEAD.size :])
        return [slot for slot in slots if slot[0]]
