"""What a command shows on a terminal; it needs rich, the extra ``cli``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def rows_line(stream: IO[Any]) -> Iterator[Callable[[int], None] | None]:
    """
    Show a line that tells how many rows have ended, and yield what takes them in.

    Where the stream is no terminal, or rich is not installed, nothing is shown, and None is yielded. No thread
    refreshes the line: who shows it forks.
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
    total, started = 0, time.monotonic()
    with Live("waiting for rows", console=console, auto_refresh=False, transient=True) as line:

        def take_in(rows: int) -> None:
            nonlocal total
            total += rows
            rate = total / max(time.monotonic() - started, 0.001)
            line.update(Text(f"{total:,} rows ended, {rate:,.0f} rows/s"), refresh=True)

        yield take_in
