"""Which files lie in a watched directory, whatever else strangers have put there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from stat import S_ISDIR
from typing import NamedTuple

from alya_django.intake.nofollow import below
from alya_django.intake.patterns import Patterns

LEVELS_MAX = 64
"""How deep directories are looked into."""

Parts = tuple[str, ...]
"""The names that lead from the watched directory to a file or directory below it."""


class Arrival(NamedTuple):
    """What lies below a watched directory under a name that matches a pattern; an ordinary file, or something else."""

    parts: Parts
    file_type: str
    status: os.stat_result


def arrivals(directory: int, patterns: Patterns, tell: Callable[[Parts, str], None]) -> list[Arrival]:
    """
    Return all but directories whose path below a directory matches, the oldest first.

    Args:
        tell: Called for each directory that cannot be looked into, with the reason.
    """
    found = list(_walk(directory, patterns, tell))
    return sorted(found, key=lambda arrival: (arrival.status.st_mtime_ns, arrival.parts))


def _walk(directory: int, patterns: Patterns, tell: Callable[[Parts, str], None]) -> Iterator[Arrival]:
    # No recursion: strangers say how deep it goes.
    waiting: list[tuple[Parts, Patterns]] = [((), patterns)]
    while waiting:
        parts, left = waiting.pop()
        try:
            entries = _entries(directory, parts, left)
        except (FileNotFoundError, NotADirectoryError):
            # It has vanished meanwhile, or has become a link.
            continue
        except OSError as error:
            tell(parts, f"cannot be looked into: {error.strerror}")
            continue
        for name, deeper, status in entries:
            path, file_type = (*parts, name), deeper.type_here()
            if not S_ISDIR(status.st_mode):
                if file_type is not None:
                    yield Arrival(path, file_type, status)
            elif len(path) > LEVELS_MAX:
                tell(path, f"is not looked into: it is more than {LEVELS_MAX} levels deep")
            else:
                waiting.append((path, deeper))


def _entries(directory: int, parts: Parts, left: Patterns) -> list[tuple[str, Patterns, os.stat_result]]:
    """Return what a directory has that may match, each with what is left to be matched below it."""
    found = []
    with below(directory, parts) as descriptor, os.scandir(descriptor) as entries:
        for entry in entries:
            if deeper := left.below(entry.name):
                with suppress(FileNotFoundError):
                    found.append((entry.name, deeper, entry.stat(follow_symlinks=False)))
    return found
