"""``alya_watch`` as a process of its own, which is killed at the worst moments."""

from __future__ import annotations

import os
import signal

import pytest

from alya_django import batches
from alya_django.models import Batch, BatchFile
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]

MOMENTS = ["about to move", "moved", "stored", "about to be committed", "committed", "removed"]
MOMENTS_OF_REJECTION = ["stored", "copied", "about to be committed", "rejected", "committed"]
CONTENT = b"debtor,creditor,amount,text\n1001,1002,x,Rent\n1001,1002,1.00,Rent\n"
USELESS = b"debtor,creditor,amount,text\n1001,1002,x,Rent\n"


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def look(manage, directory):
    """Start a watch of the directory."""

    def start(*arguments: str):
        options = ("--match", "TXN*.csv=payments", "--age", "0", "--seconds", "0.2")
        return manage("alya_watch", str(directory), *options, *arguments)

    return start


def left(directory) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


def objects(tmp_path) -> set[str]:
    storage = tmp_path / "storage"
    return {str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file()}


class CrashTests:
    @pytest.mark.rule("INF-3", "INF-6")
    @pytest.mark.parametrize("moment", MOMENTS)
    def test_a_death_at_any_moment_loses_nothing_and_doubles_nothing(
        self, look, directory, environment, tmp_path, moment
    ) -> None:
        """One file, one batch, one object, and nothing left to do, once another daemon has looked."""
        (directory / "TXN1.csv").write_bytes(CONTENT)
        environment["ACCEPTANCE_DIE_WHEN_FILE_IS"] = moment
        dying = look("--once")
        output, _ = dying.communicate(timeout=60)
        assert dying.returncode == -signal.SIGKILL, output
        assert left(directory)
        del environment["ACCEPTANCE_DIE_WHEN_FILE_IS"]
        again = look("--once")
        output, _ = again.communicate(timeout=60)
        assert again.returncode == 0, output
        record = BatchFile.objects.get()
        assert (record.is_accepted, record.nfaulty, record.file_name) == (True, 1, "TXN1.csv")
        assert batches.status(Batch.objects.get().pk).nrows == 1
        assert record.batch.context["directory"] == str(directory)
        assert left(directory) == []
        assert objects(tmp_path) == {record.object_id, record.error_object_id}
        check_invariants()

    @pytest.mark.rule("FXR-4", "FXR-18", "INF-3")
    @pytest.mark.parametrize("moment", MOMENTS_OF_REJECTION)
    def test_a_death_at_any_moment_of_a_rejection_leaves_one_object(
        self, look, directory, environment, tmp_path, moment
    ) -> None:
        """The file and what names its faulty lines lie where the record says, and nowhere else."""
        (directory / "TXN1.csv").write_bytes(USELESS)
        environment["ACCEPTANCE_DIE_WHEN_FILE_IS"] = moment
        dying = look("--once")
        output, _ = dying.communicate(timeout=60)
        assert dying.returncode == -signal.SIGKILL, output
        del environment["ACCEPTANCE_DIE_WHEN_FILE_IS"]
        again = look("--once")
        output, _ = again.communicate(timeout=60)
        assert again.returncode == 0, output
        record = BatchFile.objects.get()
        assert (record.is_accepted, record.nfaulty) == (False, 1)
        assert record.object_id.startswith("failed/")
        assert objects(tmp_path) == {record.object_id, record.error_object_id}
        assert left(directory) == []
        assert not Batch.objects.exists()


class DeathTests:
    @pytest.mark.rule("INF-13")
    @pytest.mark.parametrize(("ending", "code"), [("exit", 3), ("segfault", -signal.SIGSEGV)])
    def test_a_file_that_ends_its_process_does_so_twice(self, manage, directory, tmp_path, ending, code) -> None:
        """Then it is rejected, its bytes are kept with the rejected ones, and everything behind it is received."""
        (directory / "a.txt").write_text(ending)
        (directory / "b.txt").write_text("honest")
        os.utime(directory / "a.txt", (1_000_000_000, 1_000_000_000))
        arguments = ("alya_watch", str(directory), "--match", "*.txt=deadly", "--age", "0", "--once")
        codes = []
        for _ in range(3):
            process = manage(*arguments)
            output, _ = process.communicate(timeout=60)
            codes.append(process.returncode)
        assert codes == [code, code, 0], output
        refused, honest = BatchFile.objects.order_by("file_name")
        assert (refused.is_accepted, honest.is_accepted) == (False, True)
        assert refused.error_message == "It has ended the process that received it 2 times."
        assert refused.object_id.startswith("failed/")
        assert (tmp_path / "storage" / refused.object_id).read_text() == ending
        assert objects(tmp_path) == {refused.object_id, honest.object_id}
        assert left(directory) == []


class DaemonTests:
    @pytest.mark.rule("INF-3", "INF-6")
    def test_two_daemons_share_a_directory_and_stop_gently(self, look, directory) -> None:
        """Every file is received once, whoever is faster; SIGTERM ends both with 0."""
        daemons = [look() for _ in range(2)]
        for number in range(30):
            path = directory / f".TXN{number}"
            path.write_bytes(CONTENT + f"1003,1004,{number + 1}.00,Rent\n".encode())
            os.rename(path, directory / f"TXN{number}.csv")
        wait_until(lambda: BatchFile.objects.filter(is_accepted=True).count() == 30, "all are received", seconds=60)
        wait_until(lambda: left(directory) == [], "all are removed")
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            output, _ = daemon.communicate(timeout=30)
            assert daemon.returncode == 0, output
            assert "Traceback" not in output
        assert (BatchFile.objects.count(), Batch.objects.count()) == (30, 30)
        check_invariants()
