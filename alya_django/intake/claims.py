"""
Files taken out of a watched directory, each by one process, and found again where that process has died.

A claim is two files in the directory's ``.processing``. ``<token>.claim`` says where the file lay, and is locked as
long as somebody works on it: the kernel releases the lock of who dies, however it dies. The file itself becomes
``<token>.file``. The token is the file's identity from its first moment to its last.

Whoever sends files may own the directory, and put whatever he likes in place of ``.processing``. So it is used only if
it belongs to the user of this process, and to nobody else is open: nobody else can make one such, or change what is in
it. Who moves it away takes back his own files.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

from alya_django.intake.arrivals import Arrival, Parts
from alya_django.intake.nofollow import NotOrdinary, below, directory, open_file
from alya_django.intake.patterns import Patterns
from alya_django.readable import printable

PROCESSING = ".processing"
CLAIM, HELD, ASIDE = ".claim", ".file", ".aside"
OTHERS = 0o077
MARK = b"."
"""Follows what a claim says: a mark for each process that has begun with the file and has not come to an end of it."""


class Refused(Exception):
    """A file is not received, and a person has to look; the text says which and why."""


class Folder(NamedTuple):
    """A watched directory and its ``.processing``, both open."""

    path: Path
    directory: int
    processing: int

    def held_status(self, token: str) -> os.stat_result | None:
        """Return what a claimed file looks like; None if it is not there."""
        try:
            return os.stat(f"{token}{HELD}", dir_fd=self.processing, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def place(self, name: str) -> Path:
        """Return where something of this name in ``.processing`` lies, for people."""
        return self.path / PROCESSING / name

    def set_aside(self, token: str) -> Path:
        """Keep a claimed file where nobody looks at it again, and return where that is."""
        aside = f"{token}{ASIDE}"
        os.rename(f"{token}{HELD}", aside, src_dir_fd=self.processing, dst_dir_fd=self.processing)
        self.remove_claim(token)
        return self.place(aside)

    def remove_claim(self, token: str) -> None:
        """Remove what says that a file is claimed."""
        os.unlink(f"{token}{CLAIM}", dir_fd=self.processing)


@dataclass(frozen=True, slots=True)
class Claim:
    """A file of a watched directory that this process alone works on, open to be read."""

    folder: Folder
    token: str
    parts: Parts
    file_type: str
    file: BinaryIO
    lock: int
    told_bytes: int
    deaths: int = 0

    @property
    def source(self) -> Path:
        """Where the file lay."""
        return self.folder.path.joinpath(*self.parts)

    def remove(self) -> None:
        """Remove the file, of which nothing is left to do; its claim goes last."""
        os.unlink(f"{self.token}{HELD}", dir_fd=self.folder.processing)
        self.folder.remove_claim(self.token)

    def set_aside(self) -> Path:
        """Keep the file where nobody looks at it again, and return where that is."""
        return self.folder.set_aside(self.token)

    def forgive(self) -> None:
        """Take back the mark of this process: if it ends now, that is not for the file. Safe in a signal handler."""
        os.ftruncate(self.lock, self.told_bytes)


@contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """
    Open a watched directory and its ``.processing``, which is on its file system and made if need be.

    Raises:
        Refused: ``.processing`` is none that only this process's user can write to.
        OSError: The directory is not there, or cannot be written to.
    """
    with ExitStack() as opened:
        descriptor = opened.enter_context(directory(path))
        with suppress(FileExistsError):
            os.mkdir(PROCESSING, mode=0o700, dir_fd=descriptor)
        try:
            processing = opened.enter_context(below(descriptor, [PROCESSING]))
        except NotADirectoryError as error:
            raise Refused(f"{printable(path / PROCESSING)} is no directory.") from error
        _check_owner(path / PROCESSING, os.fstat(processing))
        yield Folder(path, descriptor, processing)


def tokens(folder: Folder) -> list[str]:
    """Return the tokens of all claims, those of processes that are alive too, the one left alone longest first."""
    found = []
    with os.scandir(folder.processing) as entries:
        for entry in entries:
            if entry.name.endswith(CLAIM):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, entry.name.removesuffix(CLAIM)))
    return [token for _, token in sorted(found)]


@contextmanager
def claim(folder: Folder, arrival: Arrival) -> Iterator[Claim | None]:
    """
    Take a file out of its directory for the time of the block; None if it is not there any more, or another is.

    Raises:
        Refused: It is no ordinary file, cannot be read, or cannot be moved; it is where it was.
    """
    with ExitStack() as opened:
        yield _take(folder, arrival, opened)


@contextmanager
def resume(folder: Folder, token: str, patterns: Patterns) -> Iterator[Claim | None]:
    """
    Take up what was claimed before, for the time of the block; None if somebody works on it, or nothing is left.

    Its type is what the patterns say now.

    Raises:
        Refused: What the claim says cannot be read, or no pattern matches it; the file is where it was. Or that is no
            ordinary file: it is set aside.
    """
    with ExitStack() as opened:
        yield _take_up(folder, token, patterns, opened)


def _check_owner(processing: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & OTHERS:
        raise Refused(
            f"{printable(processing)} is of user {status.st_uid} with mode {status.st_mode & 0o777:o}; it must be of "
            f"user {os.geteuid()}, whom the watch runs as, with mode 700."
        )


def _take(folder: Folder, arrival: Arrival, opened: ExitStack) -> Claim | None:
    source = folder.path.joinpath(*arrival.parts)
    try:
        parent = opened.enter_context(below(folder.directory, arrival.parts[:-1]))
        file = opened.enter_context(open_file(parent, arrival.parts[-1]))
    except FileNotFoundError:
        return None
    except (NotOrdinary, OSError) as error:
        raise Refused(f"{printable(source)} is left where it is: it {_fault(error)}.") from error
    if not os.path.samestat(os.fstat(file.fileno()), arrival.status):
        return None
    token = uuid4().hex
    lock = opened.enter_context(_locked(folder, token, os.O_CREAT | os.O_EXCL))
    if lock is None:
        return None
    told = json.dumps({"source": "/".join(arrival.parts)}).encode() + b"\n"
    claimed = Claim(folder, token, arrival.parts, arrival.file_type, file, lock, len(told))
    _begin(claimed, told + MARK, opened)
    return claimed if _move(parent, claimed) else None


def _move(parent: int, claimed: Claim) -> bool:
    """Move a file to where its claim says; False if it is not there, or if another one has been moved."""
    folder, held = claimed.folder, f"{claimed.token}{HELD}"
    try:
        os.rename(claimed.parts[-1], held, src_dir_fd=parent, dst_dir_fd=folder.processing)
    except OSError as error:
        folder.remove_claim(claimed.token)
        if isinstance(error, FileNotFoundError):
            return False
        raise Refused(f"{printable(claimed.source)} is left where it is: it {_fault(error)}.") from error
    for changed in (folder.processing, parent):
        # Some network file systems cannot.
        with suppress(OSError):
            os.fsync(changed)
    # Another came under its name: nobody has looked at that one yet, so it is taken up later, as if left by the dead.
    moved = folder.held_status(claimed.token)
    return moved is not None and os.path.samestat(moved, os.fstat(claimed.file.fileno()))


def _take_up(folder: Folder, token: str, patterns: Patterns, opened: ExitStack) -> Claim | None:
    held, said = (printable(folder.place(f"{token}{ending}")) for ending in (HELD, CLAIM))
    try:
        lock = opened.enter_context(_locked(folder, token))
        if lock is None:
            return None
        file = opened.enter_context(open_file(folder.processing, f"{token}{HELD}"))
    except FileNotFoundError:
        # Its process died before it had moved the file, or after it had removed it.
        folder.remove_claim(token)
        return None
    except NotOrdinary as error:
        raise Refused(f"{held} {error}; it is kept as {printable(folder.set_aside(token))}.") from error
    except OSError as error:
        raise Refused(f"{held}, or its claim, {_fault(error)}.") from error
    told, marks = _told(said, lock)
    parts = tuple(told["source"].split("/"))
    file_type = patterns.type_of(parts)
    if file_type is None:
        raise Refused(f"{said} is of {printable(told['source'])}, which no pattern matches.")
    claimed = Claim(folder, token, parts, file_type, file, lock, os.fstat(lock).st_size, deaths=len(marks))
    _begin(claimed, MARK, opened)
    return claimed


def _told(said: str, lock: int) -> tuple[dict[str, str], bytes]:
    """Return what a claim says, and the marks of those who have died over it."""
    line, _, marks = os.pread(lock, os.fstat(lock).st_size, 0).partition(b"\n")
    try:
        told = json.loads(line)
        if not isinstance(told["source"], str):
            raise TypeError("its source is no text")
    except (ValueError, LookupError, TypeError) as error:
        raise Refused(f"{said} cannot be read: {error}.") from error
    return told, marks


def _begin(claimed: Claim, text: bytes, opened: ExitStack) -> None:
    """Write to the end of a claim, and to the disk: after a power cut too there is nothing that nobody knows."""
    with open(claimed.lock, "ab", closefd=False) as file:
        file.write(text)
    os.fsync(claimed.lock)
    opened.callback(claimed.forgive)


def _fault(error: Exception) -> str:
    """Return what is wrong with a file, in words that follow its name."""
    return f"cannot be opened or moved ({error.strerror})" if isinstance(error, OSError) else f"{error}"


@contextmanager
def _locked(folder: Folder, token: str, flags: int = 0) -> Iterator[int | None]:
    """Open a claim and lock it for the time of the block; None if somebody else has, or has removed it."""
    name = f"{token}{CLAIM}"
    try:
        # To be written to, for some network file systems lock nothing else.
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600, dir_fd=folder.processing)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor if _lock(descriptor) and _is_still_there(folder, name, descriptor) else None
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_there(folder: Folder, name: str, descriptor: int) -> bool:
    """Tell whether a name still is the file that was opened: whoever had the lock before may have removed it."""
    try:
        status = os.stat(name, dir_fd=folder.processing, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), status)
