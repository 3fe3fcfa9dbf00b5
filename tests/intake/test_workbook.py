"""The program that reads workbooks, run in this process or in one that is a fork of it."""

from __future__ import annotations

import datetime
import io
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import pytest
import python_calamine

from alya_django.intake import workbook
from alya_django.intake.workbook import Limits
from tests.intake import workbooks
from tests.intake.workbooks import shared_strings, table

LIMITS = Limits(memory_bytes=1_000_000_000, seconds=10, unpacked_bytes=2_000_000, cells=1_000, row_chars=1_000)
LIBRARY = str(Path(python_calamine.__file__).parents[1])


def written(content: bytes, sheet: str | None = None, **limits: int) -> list[Any]:
    target = io.BytesIO()
    workbook.write_rows(io.BytesIO(content), target, LIMITS._replace(**limits), sheet)
    return [json.loads(line) for line in target.getvalue().splitlines()]


def memory_exhausted() -> ExpatError:
    error = ExpatError()
    error.code = workbook.NO_MEMORY
    return error


class RowTests:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (datetime.datetime(2013, 1, 31, 12, 30), "2013-01-31T12:30:00"),
            (datetime.date(2013, 1, 31), "2013-01-31"),
            (datetime.time(12, 30), "12:30:00"),
            (datetime.timedelta(hours=30), "1 day, 6:00:00"),
            (1e15, "1000000000000000"),
            (0.1, "0.1"),
        ],
    )
    def test_writes_every_value_as_text(self, value, text):
        """Days and times in ISO 8601, numbers with a point."""
        assert workbook._text(value) == text

    def test_writes_rows_and_then_how_it_ends(self):
        """Empty rows too: they count."""
        rows = table(("a", None), (), (True, "ü"))
        assert written(workbooks.workbook(rows)) == [["a"], [], ["true", "ü"], None]
        assert written(workbooks.workbook(rows), "Fees") == ["The workbook has no sheet 'Fees'."]

    @pytest.mark.parametrize(
        ("values", "end"),
        [
            ("<v/>", None),
            ("<v>1</v>", None),
            ("<v>x</v>", "The file is no workbook that can be read: a cell has no text."),
            ("<v>-1</v>", "The file is no workbook that can be read: a cell has no text."),
            ("<v>2</v>", "The file is no workbook that can be read: list index out of range"),
        ],
    )
    def test_takes_a_shared_text_by_its_place_only(self, values, end):
        """calamine takes what is no place for the first one, which may be a long one."""
        rows = f'<row r="1"><c r="A1" t="s">{values}</c><c r="B1" t="s"><v>0</v></c></row>'
        content = workbooks.workbook(rows, parts={"xl/sharedStrings.xml": shared_strings("a", "b")})
        assert written(content)[-1] == end

    @pytest.mark.parametrize(
        ("rows", "end"),
        [
            ('<row r="1"><c r="XFDX1048576"><v>1</v></c></row>', "a cell has no place."),
            (f'<row r="1"><c r="{"A" * 1_000_000}1"><v>1</v></c></row>', "a cell has no place."),
        ],
        ids=["long", "of a million letters"],
    )
    def test_reads_no_long_references(self, rows, end):
        """To make a number of a million letters takes minutes."""
        assert written(workbooks.workbook(rows)) == [f"The file is no workbook that can be read: {end}"]

    @pytest.mark.rule("FXR-22")
    @pytest.mark.parametrize(
        ("limits", "rows", "end"),
        [
            ({"row_chars": 3}, table(("four",)), "Row 1: longer than 3 characters, the limit."),
            ({"unpacked_bytes": 500}, "", "The workbook unpacks to more than 500 bytes, the limit."),
            ({"cells": 3}, table(("a", "b"), ("c", "d")), "The workbook has a sheet of more than 3 cells, the limit."),
            (
                {"cells": 1},
                "<row><c><v>1</v></c><c><v>2</v></c></row>",
                "The workbook has a sheet of more than 1 cells, the limit.",
            ),
        ],
        ids=["row", "bytes", "cells", "cells without a place"],
    )
    def test_refuses_what_exceeds_a_limit(self, limits, rows, end):
        """Each limit by itself; just below it the workbook is read."""
        ((name, limit),) = limits.items()
        assert written(workbooks.workbook(rows), **limits) == [end]
        enough = {name: limit + (2_000 if name == "unpacked_bytes" else 1)}
        assert written(workbooks.workbook(rows), **enough)[-1] is None

    @pytest.mark.rule("FXR-22")
    def test_refuses_cells_that_repeat_too_much(self):
        """A text that two cells share is two texts."""
        rows = "".join(f'<row r="{row}"><c r="A{row}" t="s"><v>0</v></c></row>' for row in (1, 2))
        content = workbooks.workbook(rows, parts={"xl/sharedStrings.xml": shared_strings("x" * 1_500)})
        end = "The workbook has a sheet whose cells repeat more than 2900 bytes, the limit."
        assert written(content, unpacked_bytes=2_900) == [end]

    @pytest.mark.rule("FXR-22")
    def test_hands_on_only_what_is_xml(self):
        """A part that is none is left out, one with a document type refuses the workbook."""
        content = workbooks.workbook(table(("a",)), parts={"xl/theme.xml": b"<half", "xl/notes.txt": b"none"})
        assert written(content) == [["a"], None]
        typed = workbooks.workbook("", head="<!DOCTYPE worksheet>")
        assert written(typed) == ["The workbook has a document type, which none has."]

    @pytest.mark.rule("FXR-44")
    @pytest.mark.parametrize("error", [MemoryError(), memory_exhausted()], ids=["Python's", "the parser's"])
    def test_gives_up_when_parsing_takes_all_memory(self, monkeypatch, error):
        """Whoever notices first: the parser, or Python."""

        class Parser:
            def Parse(self, text, is_final):
                raise error

        monkeypatch.setattr(workbook, "ParserCreate", lambda encoding: Parser())
        end = "The workbook needs more than 1000000000 bytes of memory, the limit."
        assert written(workbooks.workbook("")) == [end]

    @pytest.mark.parametrize(
        ("error", "end"),
        [
            (MemoryError(), "The workbook needs more than 1000000000 bytes of memory, the limit."),
            (ValueError("index out of bounds"), "The file is no workbook that can be read: index out of bounds"),
            (type("PanicException", (BaseException,), {})("out"), "The file is no workbook that can be read: out"),
            (ValueError("\ud800"), "The file is no workbook that can be read: ?"),
        ],
        ids=["memory", "error", "panic", "no text"],
    )
    def test_tells_whatever_is_raised(self, monkeypatch, error, end):
        """A panic in Rust is an exception that is none of Python's."""

        def fail(file):
            raise error

        monkeypatch.setattr("python_calamine.load_workbook", fail)
        assert written(workbooks.workbook("")) == [end]


def run(order: str, content: bytes = b"") -> tuple[int, list[Any]]:
    """Run the program in a fork of this process, and return how it ended, and what it wrote."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        for number, source in ((1, writing), (0, os.memfd_create("workbook"))):
            os.dup2(source, number)
        os.write(0, content)
        os.lseek(0, 0, os.SEEK_SET)
        _run_here(order)
    os.close(writing)
    with open(reading, "rb") as output:
        told = [json.loads(line) for line in output]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


def _run_here(order: str) -> None:
    status = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", open(0, closefd=False))  # noqa: SIM115 (ends with the process)
        patch.setattr("sys.stdout", open(1, "w", closefd=False))  # noqa: SIM115 (ends with the process)
        patch.setattr("sys.stderr", open(2, "w", closefd=False))  # noqa: SIM115 (ends with the process)
        try:
            workbook.main(order)
            limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)]
            ignored = [signal.getsignal(signum) is signal.SIG_IGN for signum in workbook.IGNORED]
            os.write(1, json.dumps([limits, ignored, resource.getrlimit(resource.RLIMIT_CORE)[0]]).encode() + b"\n")
            status = 0
        except SystemExit:
            status = 2
        finally:
            os._exit(status)


class ProgramTests:
    @pytest.mark.rule("FXR-44")
    def test_limits_itself_before_it_reads(self):
        """Memory and time, and no dump of a stranger's file; whom it works for says when it stops."""
        limits = LIMITS._replace(memory_bytes=64_000_000_000, seconds=100_000)
        status, told = run(workbook.order_of(limits, None, LIBRARY), workbooks.workbook(table(("a",))))
        assert (status, told) == (0, [True, ["a"], None, [[64_000_000_000, 100_000], [True] * 3, 0]])

    @pytest.mark.rule("FXR-44")
    def test_does_not_begin_without_its_parent(self):
        """A parent that died before the kernel was told to end it with that one."""
        order = json.loads(workbook.order_of(LIMITS, None, LIBRARY))
        assert run(json.dumps({**order, "parent": 1})) == (2, [])
