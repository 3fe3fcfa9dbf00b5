"""What a command shows on a terminal; it needs rich, the extra ``cli``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def rows_line(stream: IO[Any]) -> Iterator[Callable[[int], None]]:
    """
    Show a line that tells how many rows have ended, and yield what takes them in.

    Where the stream is no terminal, or rich is not installed, nothing is shown.
    """
    try:
        from rich.console import Console
    except ImportError:
        yield lambda rows: None
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield lambda rows: None
        return
    total, started = 0, time.monotonic()
    with console.status("waiting for rows") as status:

        def take_in(rows: int) -> None:
            nonlocal total
            total += rows
            status.update(f"{total:,} rows ended, {total / max(time.monotonic() - started, 0.001):,.0f} rows/s")

        yield take_in
