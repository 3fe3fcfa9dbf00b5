"""
Receive what arrives in directories: once each, whoever dies meanwhile and however many look at the same ones.

A file is taken out of its directory by an atomic rename before anything is done with it, and its claim's token is the
unique key of what is received. So whoever goes on after a crash learns whether all was done and the file only has to
be removed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from alya_django import log_words
from alya_django.answers import Receipt
from alya_django.checkers import checkers
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.intake.claims import Claim, UnreadableClaim, claim, held_path, open_folder, resume, tokens
from alya_django.intake.looks import Looks
from alya_django.intake.receive import process
from alya_django.models import BatchFile, database
from alya_django.validation import TEXT_MAX, make_storable

logger = logging.getLogger("alya_django.intake")

REQUESTED_BY = "alya_watch"
SETTLE_SECONDS = 1.0
STEP_SECONDS = 0.1
FAILURES_MAX = 3
BACK_OFF_SECONDS = 1.0
BACK_OFF_SECONDS_MAX = 300.0


class Mapping(NamedTuple):
    """Which files are of a type: those below a watched directory whose path matches the pattern."""

    pattern: str
    file_type: str


Take = tuple[Path, AbstractContextManager[Claim | None]]
"""A file, and what takes it."""


class Watcher:
    """
    What looks into directories again and again, and receives the files that it finds there.

    Args:
        directories: Where files arrive. Each gets a folder ``.processing``.
        mappings: The patterns, as of ``Path.glob``, each with the type of its files; the first that matches counts.
        age_seconds: How long ago a file must have been changed last.
        settle_seconds: How long a file must have been seen unchanged, at two looks at least.
        on_received: Called with where a file lay, its type, and what became of it.

    Raises:
        InvalidInput: A directory that is none or cannot be written to, a pattern that can match nothing, or a type
            without a checker.
    """

    def __init__(
        self,
        directories: Iterable[str | Path],
        mappings: Iterable[Mapping],
        *,
        age_seconds: float = 0,
        settle_seconds: float = SETTLE_SECONDS,
        on_received: Callable[[Path, str, Receipt], None] | None = None,
    ) -> None:
        self.directories = [_directory(directory) for directory in directories]
        self.mappings = [_mapping(mapping) for mapping in mappings]
        if not self.directories:
            raise InvalidInput("there is none to watch.", field="directories")
        if not self.mappings:
            raise InvalidInput("there is no pattern to match.", field="mappings")
        self.failures = 0
        self._settle_seconds = settle_seconds
        self._on_received = on_received or (lambda source, file_type, receipt: None)
        self._looks = Looks(age_seconds=age_seconds, settle_seconds=settle_seconds)
        self._back_off = _BackOff()
        self._told: set[str] = set()
        # Set by a signal handler; nobody waits for it, so no lock can be held when it is set.
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the file in hand; safe in a signal handler."""
        self._stopping.set()

    def run(self, *, seconds: float) -> None:
        """Look every so many seconds until stopped and, with watchfiles installed, as soon as something changes."""
        for _ in _changes(self.directories, self._stopping, seconds):
            self.cycle()

    def run_once(self) -> None:
        """Receive what there is and does not change between two looks, and end."""
        self.cycle()
        if self._looks:
            _pause(self._stopping, self._settle_seconds)
            self.cycle()

    def cycle(self) -> None:
        """
        Look at all files once, and receive those that are old enough and have not changed since the looks before.

        What fails is logged and stays for a later cycle, and the others go on; unless several fail one after the
        other: then it is not for the files, and the cycle ends.
        """
        self._looks.begin()
        self.failures = failures_running = 0
        for source, take in self._takes():
            if self._stopping.is_set() or failures_running == FAILURES_MAX:
                self._looks.break_off()
                return
            try:
                with take as claimed:
                    if claimed is not None:
                        self._receive(claimed)
                failures_running = 0
            except UnreadableClaim as unreadable:
                self._tell_once(str(unreadable))
                self.failures += 1
            except Exception as error:
                said = log_words.of_error(error)
                logger.error(
                    "%s was not received, and is tried again: %s", source, said, exc_info=log_words.traceback_of(error)
                )
                self.failures += 1
                failures_running += 1

    def _takes(self) -> Iterator[Take]:
        """Yield what may be taken: first what was claimed before, then what is new."""
        for directory in self.directories:
            try:
                folder = open_folder(directory)
                yield from self._left_behind(folder)
                yield from self._arrived(directory, folder)
            except (OSError, InvalidInput) as error:
                logger.error("%s cannot be looked at: %s", directory, log_words.of_error(error))
                self.failures += 1

    def _left_behind(self, folder: Path) -> Iterator[Take]:
        for token in tokens(folder):
            held = held_path(folder, token)
            # Where the file is not there, the claim is what is left to be removed.
            if (self._looks.is_settled(held) or not held.exists()) and self._back_off.is_over(token):
                yield held, resume(folder, token)

    def _arrived(self, directory: Path, folder: Path) -> Iterator[Take]:
        for path, file_type in _matching(directory, self.mappings):
            if self._looks.is_settled(path):
                yield path, claim(folder, path, file_type)

    def _receive(self, claimed: Claim) -> None:
        # Until it is known to have gone well.
        self._back_off.failed(claimed.token)
        database().drop_broken_connections()
        receipt, is_unchanged = _process(claimed)
        if not receipt.object_id:
            logger.error("%s was not stored; it is kept as %s.", claimed.source, claimed.set_aside())
        elif not is_unchanged:
            aside = claimed.set_aside()
            logger.error("%s was changed while it was received; what it is now is kept as %s.", claimed.source, aside)
        else:
            claimed.remove()
        self._back_off.forget(claimed.token)
        self._on_received(claimed.source, claimed.file_type, receipt)

    def _tell_once(self, text: str) -> None:
        """Log an error that stays until a person has looked."""
        if text not in self._told:
            self._told.add(text)
            logger.error("%s", text)


def configured_mappings() -> list[Mapping]:
    """
    Return the mappings that the project's settings have.

    Raises:
        InvalidInput: WATCH_TYPES is no list of objects, each with a pattern and a type.
    """
    entries = settings.WATCH_TYPES
    if not isinstance(entries, list | tuple):
        raise InvalidInput(f"ALYA['WATCH_TYPES'] is {entries!r}.")
    return [_configured(entry) for entry in entries]


class _BackOff:
    """How long each claim that has failed is left alone, twice as long each further time."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, float]] = {}

    def is_over(self, token: str) -> bool:
        return time.monotonic() >= self._until.get(token, (0.0, 0.0))[0]

    def failed(self, token: str) -> None:
        seconds = min(self._until.get(token, (0.0, BACK_OFF_SECONDS / 2))[1] * 2, BACK_OFF_SECONDS_MAX)
        self._until[token] = time.monotonic() + seconds, seconds

    def forget(self, token: str) -> None:
        self._until.pop(token, None)


def _configured(entry: Any) -> Mapping:
    is_mapping = isinstance(entry, dict) and entry.keys() == {"pattern", "type"}
    if not is_mapping or not all(isinstance(value, str) for value in entry.values()):
        raise InvalidInput(f"ALYA['WATCH_TYPES'] has {entry!r}.")
    return Mapping(entry["pattern"], entry["type"])


def _directory(path: str | Path) -> Path:
    try:
        directory = Path(path).resolve(strict=True)
        open_folder(directory)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be watched: {error.strerror}.", field="directories") from error
    return directory


def _mapping(mapping: Mapping) -> Mapping:
    """Return a mapping whose pattern Path.glob takes."""
    pattern, file_type = mapping
    if checkers.find(file_type) is None:
        raise InvalidInput(f"there is no checker for {file_type!r}, the type of {pattern!r}.", field="mappings")
    parts = [part for part in str(pattern).split("/") if part not in ("", ".")]
    is_bad = not parts or ".." in parts or any("**" in part and part != "**" for part in parts)
    if is_bad or any(part.startswith(".") for part in parts) or str(pattern).count("[") > str(pattern).count("]"):
        raise InvalidInput(f"{pattern!r} is no pattern of files below a directory.", field="mappings")
    if parts[-1] == "**":
        parts.append("*")
    return Mapping("/".join(parts), file_type)


def _matching(directory: Path, mappings: Iterable[Mapping]) -> list[tuple[Path, str]]:
    """Return the files of a directory that match, each with its type, the oldest first."""
    found: dict[Path, tuple[int, str]] = {}
    for pattern, file_type in mappings:
        for path in directory.glob(pattern):
            if path not in found and _is_ordinary(path, directory):
                with suppress(FileNotFoundError):
                    found[path] = path.lstat().st_mtime_ns, file_type
    return [(path, found[path][1]) for path in sorted(found, key=lambda path: (found[path][0], path))]


def _is_ordinary(path: Path, directory: Path) -> bool:
    """Tell whether no part of a path is hidden, or leads elsewhere."""
    is_hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
    return not is_hidden and path.parent.resolve() == path.parent and not path.is_symlink() and path.is_file()


def _process(claimed: Claim) -> tuple[Receipt, bool]:
    """Receive a claimed file, and tell whether it still is what was received."""
    before = claimed.path.stat()
    with claimed.path.open("rb") as file:
        receipt = process(
            file=file,
            file_name=claimed.source.name,
            file_type=claimed.file_type,
            context=_context(claimed),
            requested_by=REQUESTED_BY,
            unique_key=f"watch:{claimed.token}",
        )
        after = os.fstat(file.fileno())
    stored_bytes = BatchFile.objects.primary().values_list("size", flat=True).get(pk=receipt.file_id)
    return receipt, (stored_bytes, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def _context(claimed: Claim) -> dict[str, Any]:
    return {
        "file_name": make_storable(claimed.source.name, TEXT_MAX),
        "file_type": claimed.file_type,
        "directory": make_storable(str(claimed.source.parent), TEXT_MAX),
    }


def _changes(directories: Sequence[Path], stopping: threading.Event, seconds: float) -> Iterator[None]:
    """Yield whenever it is time to look."""
    try:
        from watchfiles import watch
    except ImportError:
        while not stopping.is_set():
            yield
            _pause(stopping, seconds)
        return
    yield
    yield from (
        None
        for _ in watch(
            *directories,
            # No filter: what it leaves out would begin the time anew, and the look that is due would never come.
            watch_filter=None,
            stop_event=stopping,
            rust_timeout=round(seconds * 1_000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
    )


def _pause(stopping: threading.Event, seconds: float) -> None:
    """Rest for so long, or until it is time to stop; not in ``Event.wait``, whose lock a signal handler would meet."""
    until = time.monotonic() + seconds
    while not stopping.is_set() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, STEP_SECONDS))
