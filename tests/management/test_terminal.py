from __future__ import annotations

import io
import sys

from alya_django.management import terminal
from alya_django.management.terminal import rows_line


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class RowsLineTests:
    def test_tells_how_many_rows_have_ended(self, monkeypatch) -> None:
        """On a terminal a line moves."""
        monkeypatch.setenv("TERM", "xterm")
        stream = Terminal()
        with rows_line(stream) as take_in:
            take_in(1_000)
            take_in(234)
        assert "1,234 rows ended" in stream.getvalue()

    def test_is_silent_elsewhere(self) -> None:
        """A file or a pipe gets nothing."""
        stream = io.StringIO()
        with rows_line(stream) as take_in:
            assert take_in is None
        assert stream.getvalue() == ""

    def test_speaks_now_and_then_without_rich(self, monkeypatch) -> None:
        """The extra is not needed: there is a line, and another one after a while."""
        monkeypatch.setitem(sys.modules, "rich.console", None)
        now = iter([0.0, *[1.0] * 3, 2.0, 2.0, *[20.0] * 3])
        monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
        stream = Terminal()
        with rows_line(stream) as take_in:
            for rows in (1_000, 200, 34):
                take_in(rows)
        assert stream.getvalue() == "1,000 rows ended, 1,000 rows/s\n1,234 rows ended, 62 rows/s\n"
