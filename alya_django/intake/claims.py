"""
Files taken out of a watched directory, each by one process, and found again where that process has died.

A claim is two files in the directory's ``.processing``. ``<token>.claim`` says where the file lay and of which type it
is, and is locked as long as somebody works on it: the kernel releases the lock of who dies, however it dies. The file
itself becomes ``<token>.file``. The token is the file's identity from its first moment to its last.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from uuid import uuid4

from alya_django.exceptions import InvalidInput

PROCESSING = ".processing"
CLAIM, HELD, ASIDE = ".claim", ".file", ".aside"


class UnreadableClaim(Exception):
    """A claim does not say where its file lay, so nobody can receive the file; a person has to look."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A file of a watched directory that this process alone works on."""

    folder: Path
    token: str
    source: Path
    file_type: str

    @property
    def path(self) -> Path:
        """Where the file lies meanwhile."""
        return held_path(self.folder, self.token)

    def remove(self) -> None:
        """Remove the file, of which nothing is left to do; its claim goes last."""
        self.path.unlink()
        _claim_path(self).unlink()

    def set_aside(self) -> Path:
        """Keep the file where nobody looks at it again, and return where that is."""
        aside = self.folder / f"{self.token}{ASIDE}"
        self.path.rename(aside)
        _claim_path(self).unlink()
        return aside


def open_folder(directory: Path) -> Path:
    """
    Return where the files that are claimed in a directory lie, which is on its file system; make it if need be.

    Raises:
        InvalidInput: Its name is taken by something else.
        OSError: The directory is not there, or cannot be written to.
    """
    folder = directory / PROCESSING
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not S_ISDIR(folder.lstat().st_mode):
        raise InvalidInput(f"{folder} is no directory.", field="directories")
    return folder


@contextmanager
def claim(folder: Path, source: Path, file_type: str) -> Iterator[Claim | None]:
    """Take a file out of its directory for the time of the block; None if it is no longer there."""
    claimed = Claim(folder, uuid4().hex, source, file_type)
    with _locked(_claim_path(claimed), os.O_CREAT | os.O_EXCL) as descriptor:
        if descriptor is None:
            yield None
            return
        # On the disk before the file is moved: a power cut too leaves nothing that nobody knows.
        os.write(descriptor, json.dumps({"source": str(source), "type": file_type}).encode())
        os.fsync(descriptor)
        try:
            source.rename(claimed.path)
        except OSError as error:
            _claim_path(claimed).unlink()
            if not isinstance(error, FileNotFoundError):
                raise
            yield None
            return
        for moved_in in {folder, source.parent}:
            _sync(moved_in)
        yield claimed


def tokens(folder: Path) -> list[str]:
    """Return the tokens of all claims, those of processes that are alive too, in the order they were made."""
    found = []
    for path in folder.glob(f"*{CLAIM}"):
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.stem))
    return [token for _, token in sorted(found)]


def held_path(folder: Path, token: str) -> Path:
    """Return where the file of a claim lies."""
    return folder / f"{token}{HELD}"


@contextmanager
def resume(folder: Path, token: str) -> Iterator[Claim | None]:
    """
    Take up what was claimed before, for the time of the block; None if somebody works on it, or nothing is left.

    Raises:
        UnreadableClaim: What the claim says cannot be read.
    """
    with ExitStack() as lock:
        try:
            claimed = _take_up(folder, token, lock)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UnreadableClaim(f"{folder / token}{CLAIM} cannot be read: {error}") from error
        yield claimed


def _take_up(folder: Path, token: str, lock: ExitStack) -> Claim | None:
    path = folder / f"{token}{CLAIM}"
    if lock.enter_context(_locked(path)) is None:
        return None
    if not held_path(folder, token).exists():
        # Its process died before it had moved the file, or after it had removed it.
        path.unlink()
        return None
    told = json.loads(path.read_text())
    return Claim(folder, token, Path(told["source"]), told["type"])


def _claim_path(claimed: Claim) -> Path:
    return claimed.folder / f"{claimed.token}{CLAIM}"


@contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[int | None]:
    """Open a file and lock it for the time of the block; None if somebody else has, or has removed it."""
    try:
        # To be written to, for some network file systems lock nothing else.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor if _lock(descriptor) and _is_still_there(path, descriptor) else None
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Tell whether a path still is the file that was opened: whoever had the lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
