from __future__ import annotations

import io
import sys

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

    def test_is_silent_without_rich(self, monkeypatch) -> None:
        """The extra is not needed."""
        monkeypatch.setitem(sys.modules, "rich.console", None)
        stream = Terminal()
        with rows_line(stream) as take_in:
            assert take_in is None
        assert stream.getvalue() == ""
