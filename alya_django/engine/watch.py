"""What a worker shows of itself to the process that supervises it."""

from __future__ import annotations


class NoWatch:
    """Nobody watches: rows may take as long as they like."""

    def begin(self, slot: int, row_id: int, limit: float) -> None:
        """Show that a row has begun that may take ``limit`` seconds."""

    def end(self, slot: int) -> None:
        """Show that the row of a slot has ended."""
