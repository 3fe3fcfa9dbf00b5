"""A running ``alya_watch``, and a partner who owns the directory that it watches and swaps whatever he can."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from django.core.files.storage import storages

from alya_django.models import Batch, BatchFile
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]

NOBODY = 65_534
NAMES, SWAPS = 30, 1_000
AT_FDCWD, RENAME_EXCHANGE = -100, 2
HEADER = b"debtor,creditor,amount,text\n"
SECRET = HEADER + b"1001,1002,1.00,of root alone\n"
FORGED = HEADER + b"1001,1002,2.00,forged\n"


@pytest.fixture
def ground() -> Iterator[Path]:
    """Two directories that are watched: one is the partner's, and one is honest."""
    with tempfile.TemporaryDirectory(prefix="alya-ground-") as name:
        path = Path(name)
        path.chmod(0o711)
        for directory in ("partner", "honest"):
            (path / directory).mkdir()
        if os.geteuid() == 0:
            os.chown(path / "partner", NOBODY, NOBODY)
        (path / "secret.csv").write_bytes(SECRET)
        (path / "secret.csv").chmod(0o600)
        yield path


@pytest.fixture
def look(manage, ground):
    """Start a watch of both directories."""

    def start():
        types = ("--match", "TXN*.csv=payments", "--match", "own/*.csv=flights")
        return manage(
            "alya_watch", str(ground / "partner"), str(ground / "honest"), *types, "--age", "0", "--seconds", "0.1"
        )

    return start


@contextmanager
def partner(act: Callable[[], None]) -> Iterator[None]:
    """Do something as the partner in a process of his own, which is ended with the block."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            act()
            code = 0
        os._exit(code)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def forge_a_claim(directory: Path, other: Path) -> None:
    """Put a folder of one's own in place of the watch's, with a claim for another partner and another type."""
    folder = directory / ".processing"
    with suppress(FileNotFoundError):
        folder.rename(directory / ".stolen")
    folder.mkdir()
    told = f'{{"source": "{other}/TXN7.csv", "type": "flights"}}'
    for token, content in (("a" * 32, told), ("b" * 32, told + "\n")):
        (folder / f"{token}.claim").write_text(content)
        (folder / f"{token}.file").write_bytes(FORGED)
    (directory / "forged").touch()


def swap(directory: Path, secret: Path) -> None:
    """Have a link or a pipe lie under the name of each file for a moment now and then, so that some are met as it."""
    exchange = ctypes.CDLL(None).renameat2
    pairs = [(directory / f"TXN-{number}.csv", directory / f".bait-{number}") for number in range(NAMES)]
    for amount in itertools.count(1):
        for number, (path, bait) in enumerate(pairs):
            if not bait.is_symlink() and not bait.is_fifo():
                bait.unlink(missing_ok=True)
                bait.symlink_to(secret) if number % 2 else os.mkfifo(bait)
            if not path.exists():
                path.write_bytes(HEADER + f"1001,1002,{amount}.00,{path.name}\n".encode())
        names = [(os.fsencode(path), os.fsencode(bait)) for path, bait in pairs]
        for _ in range(SWAPS):
            for path, bait in names:
                exchange(AT_FDCWD, path, AT_FDCWD, bait, RENAME_EXCHANGE)
                exchange(AT_FDCWD, path, AT_FDCWD, bait, RENAME_EXCHANGE)


def contents() -> list[bytes]:
    found = []
    for record in BatchFile.objects.exclude(checksum=""):
        with storages["default"].open(record.object_id) as file:
            found.append(file.read())
    return found


def send(directory: Path, number: int) -> None:
    """Let an honest file arrive."""
    path = directory / f".TXN{number}"
    path.write_bytes(HEADER + f"1001,1002,{number}.00,honest\n".encode())
    path.rename(directory / f"TXN{number}.csv")


def is_received(number: int) -> bool:
    return BatchFile.objects.filter(file_name=f"TXN{number}.csv", is_accepted=True).exists()


@pytest.mark.usefixtures("project_storage")
class HostileDirectoryTests:
    @pytest.mark.rule("INF-12")
    def test_a_forged_claim_is_nobody_else_and_no_other_type(self, look, ground) -> None:
        """What a stranger's folder says is not read; the honest go on; his own do when he has given it back."""
        watching = look()
        send(ground / "honest", 1)
        wait_until(lambda: is_received(1), "the honest file is received", seconds=60)
        directory = ground / "partner"
        with partner(lambda: forge_a_claim(directory, ground / "honest")):
            wait_until((directory / "forged").exists, "the claim is forged")
        for number in (2, 3):
            send(ground / "honest", number)
            wait_until(lambda number=number: is_received(number), "the next one is received", seconds=60)
        (directory / ".processing").rename(directory / ".mine")
        send(directory, 4)
        wait_until(lambda: is_received(4), "his file is received", seconds=60)
        watching.terminate()
        output, _ = watching.communicate(timeout=30)
        assert (watching.returncode, "Traceback" in output) == (0, False), output
        assert set(BatchFile.objects.values_list("file_type", flat=True)) == {"payments"}
        assert FORGED not in contents()

    @pytest.mark.rule("INF-11")
    def test_a_swapped_file_is_never_followed_and_never_waited_for(self, look, ground) -> None:
        """What only root may read is not received, and the honest files behind are."""
        watching = look()
        directory = ground / "partner"
        with partner(lambda: swap(directory, ground / "secret.csv")):
            wait_until(lambda: BatchFile.objects.count() > NAMES, "some are taken", seconds=60)
            send(ground / "honest", 2)
            wait_until(lambda: is_received(2), "the honest one is received", seconds=60)
        watching.terminate()
        output, _ = watching.communicate(timeout=30)
        assert (watching.returncode, "Traceback" in output) == (0, False), output
        assert SECRET not in contents()
        assert Batch.objects.filter(input_file="TXN2.csv").count() == 1
        check_invariants()
