"""
How directories and files are opened that strangers may swap at any moment.

Everything is opened below a directory's descriptor, a name at a time; no link is followed and no pipe waited for. What
was opened says itself what it is: its path may lead to something else by then. ``os.open`` passes no descriptor on to
other programs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFSOCK, S_ISREG
from typing import BinaryIO

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Where the system can: what one passes through need not be readable.
PASSED = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

KINDS = {S_IFLNK: "a link", S_IFIFO: "a pipe", S_IFSOCK: "a socket", S_IFDIR: "a directory"}


class NotOrdinary(Exception):
    """What lies under a name is no file to be read; the text says what it is."""


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """Open a directory by its absolute path for the time of the block; raise OSError if a part of it is a link."""
    with _descended(os.open(path.anchor, PASSED), path.parts[1:]) as descriptor:
        yield descriptor


@contextmanager
def below(start: int, parts: Sequence[str]) -> Iterator[int]:
    """Open a directory below another one for the time of the block; raise OSError if a part of the way is a link."""
    with _descended(os.dup(start), parts) as descriptor:
        yield descriptor


def open_file(start: int, name: str) -> BinaryIO:
    """
    Open a file of a directory to be read.

    Raises:
        NotOrdinary: It is something else, or has another name elsewhere.
        OSError: It cannot be opened.
    """
    # A device must not even be opened, and what is opened may be another thing than what was looked at.
    _check(os.stat(name, dir_fd=start, follow_symlinks=False))
    descriptor = os.open(name, FILE, dir_fd=start)
    try:
        _check(os.fstat(descriptor))
    except NotOrdinary:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def oddity(status: os.stat_result) -> str:
    """Return what is wrong with something that is to be an ordinary file; empty if nothing is."""
    if not S_ISREG(status.st_mode):
        return f"is {KINDS.get(S_IFMT(status.st_mode), 'a device')}"
    # The other name may be one in a directory that only root may read.
    return f"has {status.st_nlink} names" if status.st_nlink > 1 else ""


def _check(status: os.stat_result) -> None:
    if fault := oddity(status):
        raise NotOrdinary(fault)


@contextmanager
def _descended(descriptor: int, parts: Sequence[str]) -> Iterator[int]:
    """Go down from a directory, which is closed, and open the last one to be read."""
    try:
        for part, flags in (*((part, PASSED) for part in parts), (".", DIRECTORY)):
            lower = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = lower
        yield descriptor
    finally:
        os.close(descriptor)
