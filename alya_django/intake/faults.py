"""The faulty lines of a file, gathered on disk and kept as an error file that people open."""

from __future__ import annotations

import csv
from tempfile import TemporaryFile
from typing import Any, Self

from django.core.files.base import File

from alya_django.intake.objects import replace
from alya_django.readable import readable
from alya_django.spreadsheets import harmless


class Faults:
    """The faulty lines of one file. The disk holds them: there may be as many as the file has lines."""

    def __init__(self) -> None:
        self.count = 0
        self._spool: Any = TemporaryFile("w+", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
        self._writer = csv.writer(self._spool, lineterminator="\n")
        self._writer.writerow(["line", "reason"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.close()

    def add(self, line: int, reason: str) -> None:
        """Add a line and its reason."""
        self.count += 1
        self._writer.writerow([line, harmless(readable(f"{reason}"))])

    def save(self, name: str) -> str:
        """Store the error file under a name and return its object's; empty if there is no faulty line."""
        if not self.count:
            return ""
        self._spool.flush()
        self._spool.buffer.seek(0)
        return replace(name, File(self._spool.buffer))
