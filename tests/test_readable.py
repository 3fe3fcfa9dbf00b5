from __future__ import annotations

import pytest

from alya_django.readable import readable


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
