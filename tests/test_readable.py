from __future__ import annotations

import os
from pathlib import Path

import pytest

from alya_django.readable import printable, readable


class ReadableTests:
    @pytest.mark.rule("SEC-33")
    @pytest.mark.parametrize("code", [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
    def test_writes_out_what_turns_text_round(self, code: int) -> None:
        """So nobody reads account 1002 as 2001."""
        assert readable(f"account {chr(code)}2001") == f"account \\u{code:04x}2001"

    @pytest.mark.parametrize(
        ("text", "shown"), [("a\x1b[2J", r"a\x1b[2J"), ("a\rb", r"a\rb"), ("a\0b\x9b", r"a\x00b\x9b")]
    )
    def test_writes_out_what_moves_the_cursor(self, text: str, shown: str) -> None:
        """Nor is a line of a terminal written over by a file's name."""
        assert readable(text) == shown

    @pytest.mark.parametrize("text", ["", "a\tb\r\nc\n", "שלום 12", "مرحبا", "1\u200f2", "\N{PILE OF POO}", "\\u202e"])
    def test_leaves_all_else(self, text: str) -> None:
        """Scripts that are written from right to left are, and marks that belong to them."""
        assert readable(text) == text


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
