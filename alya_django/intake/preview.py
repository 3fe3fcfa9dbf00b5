"""
What a checker makes of the beginning of a file that is stored: its first rows, and what is faulty.

However large the file is, and whatever it unpacks to, a look takes little memory and some seconds at most. Nothing is
stored but, where the file turns out to be unreadable, that it is rejected.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from alya_django.checkers import BadFile, FaultyLine, FileChecker, Route
from alya_django.control_totals import differences
from alya_django.exceptions import InvalidInput
from alya_django.intake.faults import Faults
from alya_django.intake.layout import reading
from alya_django.intake.lines import Totals, rows
from alya_django.intake.receive import NO_USABLE_LINE, REASON_CHARS_MAX, reject
from alya_django.intake.routing import Routing
from alya_django.intake.source import opened
from alya_django.models import BatchFile
from alya_django.processors import BatchInput
from alya_django.validation import JSON

LINES_MAX = 1_000
BYTES_MAX = 10_000_000
SECONDS_MAX = 2.0
SHOWN_MAX = 20


@dataclass(slots=True)
class Preview:
    """
    The beginning of a file.

    Args:
        rows: The first rows, each with its input as it would be stored.
        faults: The first faulty lines.
        nrows, nfaulty: How many there are in what was looked at.
        stopped_by: What there was too much of to look on: ``lines``, ``bytes`` or ``seconds``; empty if the file was
            looked at to its end.
        reason: Why the file cannot be accepted, in the words of who found out; empty if nothing speaks against it.
        declared: The control totals that the file declares, if they stand in what was looked at.
        mismatch: Where the rows of a file that was looked at to its end are not as declared.
        route: Where its rows go; None where that is for the checker to say, and it has not said it.
    """

    rows: list[tuple[int, JSON]] = field(default_factory=list)
    faults: list[FaultyLine] = field(default_factory=list)
    nrows: int = 0
    nfaulty: int = 0
    stopped_by: str = ""
    reason: str = ""
    declared: dict[str, Any] | None = None
    mismatch: list[str] = field(default_factory=list)
    route: Route | None = None


def look(record: BatchFile, checker: FileChecker) -> Preview:
    """Return what a checker makes of the beginning of a stored file."""
    with _Findings() as findings:
        return _look(record, checker, findings)


def reject_unreadable(record: BatchFile, checker: FileChecker) -> None:
    """Reject a stored file if its beginning tells that it cannot be accepted."""
    with _Findings() as findings:
        found = _look(record, checker, findings)
        if found.reason:
            reject(record.pk, found.reason, findings)


class _Enough(BaseException):
    """
    Enough was looked at.

    What reads a file takes every Exception for a fault of the file, and so may the checker.
    """


class _Findings(Faults):
    """The faulty lines, the first of them at hand, and how much may still be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[FaultyLine] = []
        self._nlines = self._nbytes = 0
        self._until = monotonic() + SECONDS_MAX

    def add(self, line: int, reason: str) -> None:
        self.take_line()
        super().add(line, reason)
        if len(self.first) < SHOWN_MAX:
            self.first.append(FaultyLine(line, f"{reason}"[:REASON_CHARS_MAX]))

    def take_line(self) -> None:
        """Go on with one more line, or stop."""
        self._nlines += 1
        if self._nlines > LINES_MAX:
            raise _Enough("lines")
        self._look_at_clock()

    def take_bytes(self, nbytes: int) -> None:
        """Go on with so many bytes more, or stop."""
        self._nbytes += nbytes
        if self._nbytes > BYTES_MAX:
            raise _Enough("bytes")
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        if monotonic() > self._until:
            raise _Enough("seconds")


def _look(record: BatchFile, checker: FileChecker, findings: _Findings) -> Preview:
    found, totals, routing = Preview(), Totals(checker.totals), Routing(checker.routes)
    try:
        _read(record, checker, findings, found, totals, routing)
    except _Enough as enough:
        found.stopped_by = str(enough)
    except FileNotFoundError:
        found.reason = "The storage has no such object."
    except (BadFile, InvalidInput) as error:
        found.reason = f"{error}"[:REASON_CHARS_MAX]
    else:
        found.reason = "" if found.nrows else NO_USABLE_LINE
    found.faults, found.nfaulty, found.route = findings.first, findings.count, routing.route
    if totals.declared is not None:
        found.declared = totals.declared.as_json()
        if not found.stopped_by:
            received = {"count": found.nrows, "sums": totals.sums.as_json()}
            found.mismatch = differences(found.declared, received, "found")
    return found


def _read(
    record: BatchFile, checker: FileChecker, findings: _Findings, found: Preview, totals: Totals, routing: Routing
) -> None:
    """Read lines into a preview until there is enough."""
    context: dict[str, JSON] = {}
    with (
        opened(record.object_id, on_bytes=findings.take_bytes) as file,
        reading(on_bytes=findings.take_bytes),
        # What is left open is closed before the file is.
        closing(rows(lambda: checker.check(file, record.file_name, context), findings, totals, routing)) as lines,
    ):
        for row in lines:
            findings.take_line()
            found.nrows += 1
            if len(found.rows) < SHOWN_MAX:
                found.rows.append(_plain(row))


def _plain(row: BatchInput) -> tuple[int, JSON]:
    return row.line, json.loads(str(row.input))
