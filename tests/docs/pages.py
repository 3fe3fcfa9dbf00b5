"""The pages of docs/, read as text: their headings, tables, directives and fenced blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"\*\*`(?P<name>[^`]+)`\*\*(?P<rest>[^\n]*)\n\n$")
_HEADING = re.compile(r"^#{2,} `?([^`\n]+)`?$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:\w+):: (\S+?)(?:\(|$)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``name`` is that of the file above it, ``is_added`` where it goes to the file's end."""

    line: int
    language: str
    text: str
    name: str | None
    is_added: bool


def read(page: str) -> str:
    """Return the text of a page, named from docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        named = _NAME.search(text, 0, match.start())
        found.append(
            Block(
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"],
                text=match["text"],
                name=named["name"] if named else None,
                is_added=named is not None and "added at the end" in named["rest"],
            )
        )
    return found


def headings(text: str) -> list[str]:
    """Return the headings below the page's title."""
    return _HEADING.findall(text)


def directives(text: str) -> list[str]:
    """Return the full names that a page's autodoc and domain directives document, in order."""
    return _DIRECTIVE.findall(text)


def rows(text: str, heading: str | None = None) -> list[list[str]]:
    """Return the cells of the tables of a page, or of one section of it, without their heads."""
    if heading is not None:
        text = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        is_head = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if line.startswith("| ") and not is_head:
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found
