from __future__ import annotations

import os
from pathlib import Path

import pytest

from alya_django.readable import printable


class PrintableTests:
    @pytest.mark.rule("INF-14")
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("Überweisung 1.csv", "Überweisung 1.csv"),
            (Path("/in/TXN1.csv"), "/in/TXN1.csv"),
            ("a\nb.csv", "'a\\nb.csv'"),
            ("\x1b[2J.csv", "'\\x1b[2J.csv'"),
            ("a\u202e1002.csv", "'a\\u202e1002.csv'"),
            ("a\u2066b", "'a\\u2066b'"),
            (os.fsdecode(b"\xff.csv"), "'\\udcff.csv'"),
        ],
        ids=["letters", "path", "line", "escape", "override", "isolate", "no text"],
    )
    def test_what_steers_a_terminal_is_written_out(self, text, shown) -> None:
        """And the whole is quoted, so that it can be told from a name that has a backslash."""
        assert printable(text) == shown
