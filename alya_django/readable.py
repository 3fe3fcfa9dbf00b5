"""What people read must be what is stored: characters that change how others are shown are written out."""

from __future__ import annotations

import re

# What turns text round, so that account 1002 is read as 2001; and what moves the cursor of a terminal.
UNSEEN = re.compile("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


def readable(text: str) -> str:
    """Return a text that is shown in the order in which it is stored, whatever characters are in it."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable(name: object) -> str:
    """Return a name in one line of a log: quoted, its control characters written out, if it has any or is no text."""
    shown = f"{name}"
    return shown if shown.isprintable() else repr(shown)
