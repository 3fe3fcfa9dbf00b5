"""
Run a program that may die of what it reads, or never end, in a process of its own.

It is started anew rather than forked: what a fork has of the process that serves other people, such as its database
connections, and locks that its threads hold, is not for a stranger's file.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.spawn import get_executable
from pathlib import Path
from time import monotonic
from typing import IO, BinaryIO

from alya_django.exceptions import AlyaError

# What Python itself may need; the rest, secrets among it, is not for a stranger's file.
ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME")
PIECE_BYTES = 262_144
STEP_SECONDS = 0.1


class NotStarted(AlyaError):
    """The program could not begin, which is the machine's fault and not that of the file."""


class Died(Exception):
    """The program has ended without a last word, by the signal whose name is the text, or with that status."""


class TooSlow(Exception):
    """The program was waited for as long as it may be."""


def lines(
    program: Path, order: str, file: BinaryIO, *, seconds: float, on_wait: Callable[[], None]
) -> Generator[bytes, None, None]:
    """
    Yield the lines that a program writes, but the first, by which it tells that it has begun; end it when closed.

    Args:
        order: Its one argument.
        file: Its standard input, a file of the system.
        seconds: How long it is waited for altogether; while its lines are used, no time passes.
        on_wait: Called several times a second.

    Raises:
        NotStarted: It could not begin.
        Died: It has not ended well.
        TooSlow: It was waited for too long.
    """
    with _started(program, order, file) as process:
        told = _lines(_pieces(process, seconds, on_wait))
        if next(told, None) is None:
            raise NotStarted(
                f"{_python()!r} cannot run {program.name}: {_end_of(process)}. "
                "Where it is no Python, multiprocessing.set_executable() says which is."
            )
        yield from told
        if process.wait():
            raise Died(_end_of(process))


@contextmanager
def _started(program: Path, order: str, file: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    command = [_python(), "-P", "-S", str(program), order]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    try:
        # In a session of its own, so that Ctrl-C is for its parent only.
        process = subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, env=environment, cwd="/", start_new_session=True
        )
    except OSError as error:
        raise NotStarted(f"{command[0]!r} cannot be started: {error.strerror}.") from error
    with process:
        try:
            yield process
        finally:
            process.kill()


def _python() -> str:
    return os.fsdecode(get_executable())


def _pieces(process: subprocess.Popen[bytes], seconds: float, on_wait: Callable[[], None]) -> Iterator[bytes]:
    """Yield what a process writes, as it comes."""
    output: IO[bytes] | None = process.stdout
    assert output is not None
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            began = monotonic()
            is_there = selector.select(STEP_SECONDS)
            seconds -= monotonic() - began
            on_wait()
            if seconds < 0:
                raise TooSlow
            if is_there:
                if not (piece := os.read(output.fileno(), PIECE_BYTES)):
                    return
                yield piece


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Return by which signal a process has ended, or with which status."""
    code = process.wait()
    return signal.Signals(-code).name if code < 0 else f"status {code}"
