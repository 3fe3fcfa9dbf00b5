"""What a command shows on a terminal; it needs rich, the extra ``cli``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

BAR = 30
PLAIN_WIDTH = 70
LINE_SECONDS = 10.0


@contextmanager
def live_text(stream: IO[Any], begin: str = "") -> Iterator[Callable[[str], None] | None]:
    """
    Show a text that changes in its place, and yield what changes it; at the end it is gone.

    Where the stream is no terminal, or rich is not installed, nothing is shown, and None is yielded. No thread
    refreshes the text: who shows it may fork.
    """
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        yield None
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield None
        return
    with Live(Text(begin), console=console, auto_refresh=False, transient=True) as live:
        yield lambda text: live.update(Text(text), refresh=True)


@contextmanager
def bytes_bar(stream: IO[Any], total: int) -> Iterator[Callable[[str, int], None] | None]:
    """
    Show how far something has come in so many bytes, and yield what takes in a word for it and the bytes so far.

    Without rich the line is a plain one. Where the stream is no terminal nothing is shown, and None is yielded.
    """
    with live_text(stream) as live:
        if live is None and not stream.isatty():
            yield None
            return
        show = live or partial(_show_plainly, stream)
        shown = ""

        def take_in(word: str, done: int) -> None:
            nonlocal shown
            text = f"{bar(done, total)}  {word}"
            if text != shown:
                shown = text
                show(text)

        yield take_in
        if live is None:
            _show_plainly(stream, "")


def bar(done: int, total: int) -> str:
    """Return how much of a total is done as a bar and a percentage; neither is full before all is done."""
    per_mille = done * 1000 // max(total, 1)
    return f"[{'#' * (per_mille * BAR // 1000):<{BAR}}] {per_mille / 10:5.1f}%"


def _show_plainly(stream: IO[Any], text: str) -> None:
    stream.write(f"\r{text:<{PLAIN_WIDTH}}" if text else f"\r{'':<{PLAIN_WIDTH}}\r")
    stream.flush()


def _now_and_then(stream: IO[Any]) -> Callable[[str], None]:
    """Return what writes a text as a line, if it has not done so for LINE_SECONDS."""
    written_at = -math.inf

    def write(text: str) -> None:
        nonlocal written_at
        if time.monotonic() >= written_at + LINE_SECONDS:
            written_at = time.monotonic()
            stream.write(f"{text}\n")
            stream.flush()

    return write


@contextmanager
def rows_line(stream: IO[Any]) -> Iterator[Callable[[int], None] | None]:
    """
    Show a line that tells how many rows have ended, and yield what takes them in.

    Without rich there is a new line now and then. Where the stream is no terminal nothing is shown, and None is
    yielded.
    """
    with live_text(stream, "waiting for rows") as live:
        if live is None and not stream.isatty():
            yield None
            return
        show = live or _now_and_then(stream)
        total, started = 0, time.monotonic()

        def take_in(rows: int) -> None:
            nonlocal total
            total += rows
            rate = total / max(time.monotonic() - started, 0.001)
            show(f"{total:,} rows ended, {rate:,.0f} rows/s")

        yield take_in
