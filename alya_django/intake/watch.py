"""
Receive what arrives in directories: once each, whoever dies meanwhile and however many look at the same ones.

A file is taken out of its directory by an atomic rename before anything is done with it, and its claim's token is the
unique key of what is received. So whoever goes on after a crash learns whether all was done and the file only has to
be removed.

Directories are written by strangers, who may put anything there, and swap it at any moment. What is no ordinary file
is not read, and costs the files behind it nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from alya_django import log_words
from alya_django.answers import Receipt
from alya_django.checkers import BadFile
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.intake.arrivals import Parts, arrivals
from alya_django.intake.claims import Claim, Folder, Refused, claim, open_folder, resume, tokens
from alya_django.intake.faults import Faults
from alya_django.intake.looks import Looks
from alya_django.intake.nofollow import directory, oddity
from alya_django.intake.objects import too_large
from alya_django.intake.patterns import Mapping, Patterns
from alya_django.intake.receive import keep, process, reject
from alya_django.models import BatchFile, database
from alya_django.readable import printable
from alya_django.validation import TEXT_MAX, make_storable

logger = logging.getLogger("alya_django.intake")

REQUESTED_BY = "alya_watch"
SETTLE_SECONDS = 1.0
STEP_SECONDS = 0.1
FAILURES_MAX = 3
DEATHS_MAX = 2
BACK_OFF_SECONDS = 1.0
BACK_OFF_SECONDS_MAX = 300.0

Take = tuple[Path, AbstractContextManager[Claim | None]]
"""Where a file lay, and what takes it."""


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
        InvalidInput: A directory that is none, a pattern that can match nothing, or a type without a checker.
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
        self.directories = [_directory(path) for path in directories]
        self._patterns = Patterns.of(mappings)
        if not self.directories:
            raise InvalidInput("there is none to watch.", field="directories")
        if not self._patterns:
            raise InvalidInput("there is no pattern to match.", field="mappings")
        self.failures = 0
        self._settle_seconds = settle_seconds
        self._on_received = on_received or (lambda source, file_type, receipt: None)
        self._looks = Looks(age_seconds=age_seconds, settle_seconds=settle_seconds)
        self._back_off = _BackOff()
        self._told = _Told()
        self._in_hand: Claim | None = None
        # Set by a signal handler; nobody waits for it, so no lock can be held when it is set.
        self._stopping = threading.Event()

    def stop(self) -> None:
        """
        End after the file in hand; safe in a signal handler.

        Whoever does not wait for that, and kills this process, is not counted against the file.
        """
        self._stopping.set()
        if self._in_hand is not None:
            self._in_hand.forgive()

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
        self._told.begin()
        self.failures = failures_running = 0
        with closing(self._takes()) as takes:
            for source, take in takes:
                if self._stopping.is_set() or failures_running == FAILURES_MAX:
                    self._looks.break_off()
                    self._told.break_off()
                    return
                try:
                    with take as claimed:
                        if claimed is not None:
                            self._receive(claimed)
                    failures_running = 0
                except Refused as refused:
                    self._fail(f"{refused}")
                except Exception as error:
                    said = log_words.of_error(error)
                    logger.error(
                        "%s was not received, and is tried again: %s",
                        printable(source),
                        said,
                        exc_info=log_words.traceback_of(error),
                    )
                    self.failures += 1
                    failures_running += 1

    def _takes(self) -> Generator[Take, None, None]:
        """Yield what may be taken: first what was claimed before, then what is new."""
        for path in self.directories:
            try:
                with open_folder(path) as folder:
                    yield from self._left_behind(folder)
                    yield from self._arrived(folder)
            except (OSError, Refused) as error:
                said = f"{error}" if isinstance(error, Refused) else log_words.of_error(error)
                logger.error("%s cannot be looked at: %s", printable(path), said)
                self.failures += 1

    def _left_behind(self, folder: Folder) -> Iterator[Take]:
        for token in tokens(folder):
            status = folder.held_status(token)
            # Where the file is not there, the claim is what is left to be removed; where it is none, it is refused.
            is_due = status is None or oddity(status) or self._looks.is_settled(status)
            if is_due and self._back_off.is_over(token):
                yield folder.path / token, resume(folder, token, self._patterns)

    def _arrived(self, folder: Folder) -> Iterator[Take]:
        def pass_over(parts: Parts, reason: str) -> None:
            self._told.tell(logging.WARNING, f"{printable(folder.path.joinpath(*parts))} {reason}.")

        for arrival in arrivals(folder.directory, self._patterns, pass_over):
            if fault := oddity(arrival.status):
                pass_over(arrival.parts, f"is passed over: it {fault}")
            elif self._looks.is_settled(arrival.status):
                yield folder.path.joinpath(*arrival.parts), claim(folder, arrival)

    def _receive(self, claimed: Claim) -> None:
        # Until it is known to have gone well.
        self._back_off.failed(claimed.token)
        database().drop_broken_connections()
        self._in_hand = claimed
        try:
            receipt, is_unchanged = _decide(claimed)
        finally:
            self._in_hand = None
        source = printable(claimed.source)
        if not receipt.object_id:
            kept = printable(claimed.set_aside())
            logger.error("%s was not stored; it is kept as %s. %s", source, kept, receipt.reason)
        elif not is_unchanged:
            kept = printable(claimed.set_aside())
            logger.error("%s was changed while it was received; what it is now is kept as %s.", source, kept)
        else:
            claimed.remove()
        self._back_off.forget(claimed.token)
        self._on_received(claimed.source, claimed.file_type, receipt)

    def _fail(self, text: str) -> None:
        self._told.tell(logging.ERROR, text)
        self.failures += 1


class _Told:
    """What was logged of things that stay as they are until a person has looked: once, as long as it is so."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._now: set[str] = set()

    def begin(self) -> None:
        """Begin a look; what is not told of until the next one is forgotten."""
        self._before, self._now = self._now, set()

    def break_off(self) -> None:
        """End a look early: what was not told of now may be as it was."""
        self._now |= self._before

    def tell(self, level: int, text: str) -> None:
        if text not in self._before and text not in self._now:
            logger.log(level, "%s", text)
        self._now.add(text)


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


def _directory(path: str | Path) -> Path:
    """Return where a directory really is: later, a link on the way is not followed."""
    try:
        resolved = Path(path).resolve(strict=True)
        with directory(resolved):
            return resolved
    except OSError as error:
        raise InvalidInput(f"{path} cannot be watched: {error.strerror}.", field="directories") from error


def _decide(claimed: Claim) -> tuple[Receipt, bool]:
    """Receive or reject a claimed file, and tell whether it still is what was looked at."""
    before = os.fstat(claimed.file.fileno())
    if reason := _obstacle(claimed, before):
        receipt = _refuse(claimed, reason)
    else:
        receipt = process(
            file=claimed.file, context=_context(claimed), requested_by=REQUESTED_BY, **_identity(claimed)
        )
    after = os.fstat(claimed.file.fileno())
    stored_bytes = BatchFile.objects.primary().values_list("size", flat=True).get(pk=receipt.file_id)
    return receipt, (stored_bytes, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def _obstacle(claimed: Claim, status: os.stat_result) -> str:
    """Return why a file is not even read; empty if it may be."""
    if claimed.deaths >= DEATHS_MAX:
        return f"It has ended the process that received it {claimed.deaths} times."
    # Nothing is gained from reading what is too large: it may be so and have no bytes on the disk.
    return too_large().reason if status.st_size > settings.FILE_BYTES_MAX else ""


def _refuse(claimed: Claim, reason: str) -> Receipt:
    """Reject a file without reading it; what of it is in the storage already is kept there."""
    record = keep(_Unread(reason), **_identity(claimed))
    with Faults() as faults:
        return reject(record.pk, reason, faults)


class _Unread:
    """What stands for a file that must not be read: whoever does so all the same is refused it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def read(self, size: int) -> bytes:
        raise BadFile(self._reason)


def _identity(claimed: Claim) -> dict[str, Any]:
    return {
        "file_name": claimed.source.name,
        "file_type": claimed.file_type,
        "unique_key": f"watch:{claimed.token}",
    }


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
            # What strangers make below is looked at every so many seconds: it could be more than the system can watch,
            # and a link there could lead to all that there is.
            recursive=False,
        )
    )


def _pause(stopping: threading.Event, seconds: float) -> None:
    """Rest for so long, or until it is time to stop; not in ``Event.wait``, whose lock a signal handler would meet."""
    until = time.monotonic() + seconds
    while not stopping.is_set() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, STEP_SECONDS))
