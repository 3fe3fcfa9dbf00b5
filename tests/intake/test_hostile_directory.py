"""What becomes of whatever strangers put into a watched directory, of the honest file behind it, and of the watch."""

from __future__ import annotations

import fcntl
import logging
import os
import signal

import pytest

from alya_django.intake import claims, watch
from alya_django.models import BatchFile
from tests.intake.files import CONTENT
from tests.intake.test_nofollow import ODD
from tests.intake.test_watch import directory, left, look_twice, names, put, storage, watcher

__all__ = ["directory", "storage"]

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

SPARSE_BYTES = 2**40


@pytest.fixture
def secret(registry, storage, directory):
    """What is not the sender's, beside the directory."""
    path = directory.parent / "secret"
    path.write_bytes(CONTENT)
    return path


def swapping(step, path, make):
    """Return a step of a claim before which a file is swapped, the first time."""

    def swap_first(*arguments):
        if path.is_file() and not path.is_symlink():
            path.unlink()
            make(path)
        return step(*arguments)

    return swap_first


def aside(directory):
    return list((directory / ".processing").glob("*.aside"))


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(("make", "said"), ODD.values(), ids=ODD)
class OddThingTests:
    """Each thing that is no ordinary file, at each moment at which it can come."""

    @pytest.mark.rule("INF-5", "INF-11")
    def test_one_that_lies_there_is_passed_over(self, directory, caplog, make, said) -> None:
        """It is told of once, unless it is a directory; the honest file behind it is received."""
        make(directory / "TXN1.csv")
        put(directory / "behind.csv")
        watching = look_twice(directory)
        watching.cycle()
        assert (names(), watching.failures) == (["behind.csv"], 0)
        told = [] if said == "is a directory" else [f"{directory}/TXN1.csv is passed over: it {said}."]
        assert caplog.messages == told
        assert os.path.lexists(directory / "TXN1.csv")

    @pytest.mark.rule("INF-11")
    def test_one_that_comes_before_the_opening_is_left(self, directory, monkeypatch, make, said) -> None:
        """It has not been moved; nothing of it is read."""
        put(directory / "TXN1.csv", age=10)
        put(directory / "behind.csv")
        monkeypatch.setattr(claims, "open_file", swapping(claims.open_file, directory / "TXN1.csv", make))
        watching = look_twice(directory)
        assert (names(), watching.failures) == (["behind.csv"], 1)
        watching.cycle()
        assert watching.failures == 0
        assert os.path.lexists(directory / "TXN1.csv")

    @pytest.mark.rule("INF-11")
    def test_one_that_comes_before_the_move_is_set_aside(self, directory, caplog, monkeypatch, make, said) -> None:
        """What was moved is another thing than was opened: neither is received, now or when it is taken up."""
        put(directory / "TXN1.csv", age=10)
        put(directory / "behind.csv")
        monkeypatch.setattr(claims, "_begin", swapping(claims._begin, directory / "TXN1.csv", make))
        watching = look_twice(directory)
        watching.cycle()
        assert (names(), watching.failures) == (["behind.csv"], 1)
        (kept,) = aside(directory)
        (told,) = caplog.messages
        assert f" {said}; it is kept as {kept}." in told
        watching.cycle()
        assert (names(), watching.failures) == (["behind.csv"], 0)


class SizeTests:
    @pytest.mark.rule("INF-9", "INF-11")
    def test_one_that_is_too_large_is_not_even_read(self, directory, monkeypatch) -> None:
        """It may have no bytes on the disk at all, and a terabyte of them to read."""
        put(directory / "TXN1.csv", age=10)
        os.truncate(directory / "TXN1.csv", SPARSE_BYTES)
        put(directory / "behind.csv")
        watching = look_twice(directory, settle_seconds=0)
        assert (names(), watching.failures) == (["TXN1.csv", "behind.csv"], 0)
        record = BatchFile.objects.get(file_name="TXN1.csv")
        assert (record.is_accepted, record.size, record.receipt().object_id) == (False, 0, "")
        assert [path.stat().st_size for path in aside(directory)] == [SPARSE_BYTES]

    @pytest.mark.rule("INF-9", "INF-11")
    def test_one_that_shrinks_is_kept(self, directory, monkeypatch) -> None:
        """What was read of it is a batch; a person has to look at what there is now."""
        put(directory / "TXN1.csv", age=10)
        put(directory / "behind.csv")
        process = watch.process

        def shrink(*, file, **options):
            if options["file_name"] == "TXN1.csv":
                (held,) = (directory / ".processing").glob("*.file")
                os.truncate(held, len(CONTENT))
            return process(file=file, **options)

        monkeypatch.setattr(watch, "process", shrink)
        look_twice(directory)
        assert names() == ["TXN1.csv", "behind.csv"]
        assert [path.read_bytes() for path in aside(directory)] == [CONTENT]


class RightTests:
    @pytest.mark.rule("INF-11")
    @pytest.mark.parametrize("count", [1, 4])
    @pytest.mark.parametrize("step", ["open_file", "rename"])
    def test_what_may_not_be_opened_or_moved_is_left(self, directory, caplog, monkeypatch, step, count) -> None:
        """However many there are they are told of once, end no look, and are received when they may be."""
        shut = [put(directory / f"{number}.csv", age=10).name for number in range(count)]
        put(directory / "behind.csv")

        def refusing(act, place):
            def do(*arguments, **options):
                if arguments[place] in shut:
                    raise PermissionError(13, "Permission denied")
                return act(*arguments, **options)

            return do

        with monkeypatch.context() as patch:
            if step == "rename":
                patch.setattr(claims.os, "rename", refusing(os.rename, 0))
            else:
                patch.setattr(claims, "open_file", refusing(claims.open_file, 1))
            watching = look_twice(directory)
            watching.cycle()
            assert (names(), watching.failures) == (["behind.csv"], count)
        assert caplog.messages == [
            f"{directory}/{name} is left where it is: it cannot be opened or moved (Permission denied)."
            for name in shut
        ]
        watching.cycle()
        assert (names(), left(directory)) == ([*shut, "behind.csv"], [])

    @pytest.mark.rule("INF-11")
    def test_one_with_a_lease_is_not_waited_for(self, directory) -> None:
        """Its owner can make who opens it wait for a minute; it is received when the lease is given up."""
        put(directory / "TXN1.csv", age=10)
        put(directory / "behind.csv")
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        with (directory / "TXN1.csv").open("r+b") as leased:
            fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            watching = look_twice(directory)
            assert (names(), watching.failures) == (["behind.csv"], 1)
        signal.signal(signal.SIGIO, before)
        watching.cycle()
        assert names() == ["TXN1.csv", "behind.csv"]


class FolderTests:
    @pytest.mark.rule("INF-12")
    @pytest.mark.parametrize(
        "place",
        [
            lambda path: path.mkdir(mode=0o755),
            lambda path: path.symlink_to(path.parent.parent / "elsewhere"),
            os.mkfifo,
            lambda path: path.touch(),
        ],
        ids=["open to others", "link", "pipe", "file"],
    )
    def test_a_strangers_folder_is_not_used(self, directory, tmp_path, caplog, place) -> None:
        """The directory is told of at every look, and the next one is looked at all the same."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "a.claim").write_text('{"source": "forged.csv"}')
        put(elsewhere / "a.file")
        place(directory / ".processing")
        put(directory / "TXN1.csv")
        put(tmp_path / "next" / "behind.csv")
        watching = look_twice(directory, tmp_path / "next")
        assert (names(), watching.failures, len(caplog.messages)) == (["behind.csv"], 1, 2)
        assert (elsewhere / "a.file").exists()

    @pytest.mark.rule("INF-12")
    def test_one_that_is_moved_away_while_a_file_is_in_hand_changes_nothing(self, directory, monkeypatch) -> None:
        """What is open stays what it is, whatever it is called; another's folder in its place is not asked."""
        put(directory / "TXN1.csv")
        process = watch.process

        def replace(**options):
            (directory / ".processing").rename(directory / ".mine")
            (directory / ".processing").mkdir(mode=0o755)
            return process(**options)

        with monkeypatch.context() as patch:
            patch.setattr(watch, "process", replace)
            watching = look_twice(directory)
        assert (names(), watching.failures, left(directory)) == (["TXN1.csv"], 0, [])
        (directory / ".processing").rmdir()
        put(directory / "TXN2.csv")
        watching.cycle()
        watching.cycle()
        assert names() == ["TXN1.csv", "TXN2.csv"]

    @pytest.mark.rule("INF-12")
    def test_a_watched_directory_that_becomes_a_link_is_not_followed(self, directory, tmp_path) -> None:
        """Else whoever may write beside it would be another partner."""
        watching = watcher(directory)
        put(tmp_path / "other" / "TXN1.csv")
        directory.rename(tmp_path / "away")
        directory.symlink_to(tmp_path / "other")
        watching.cycle()
        watching.cycle()
        assert (names(), watching.failures) == ([], 1)

    @pytest.mark.rule("INF-12")
    def test_the_type_is_what_the_patterns_say(self, directory) -> None:
        """Whatever else a claim may say."""
        folder = directory / ".processing"
        folder.mkdir(mode=0o700)
        (folder / "a.claim").write_text('{"source": "TXN1.csv", "type": "internal"}')
        put(folder / "a.file")
        look_twice(directory)
        record = BatchFile.objects.get()
        assert (record.file_type, record.batch.context["directory"]) == ("txn", str(directory))


class NameTests:
    @pytest.mark.rule("INF-11", "INF-14")
    @pytest.mark.parametrize(
        "name",
        [b"x" * 251 + b".csv", b"a\nERROR b.csv", b"\x1b[2J.csv", "\u202e1002.csv".encode(), b"\xff.csv", b"-rf.csv"],
        ids=["255 bytes", "line", "escape", "override", "no text", "option"],
    )
    def test_any_name_is_received_and_steers_no_log(self, directory, settings, caplog, name) -> None:
        """It is logged in one line, and its control characters are written out."""
        put(directory / os.fsdecode(name), CONTENT + b"dan,1.00\n")
        settings.ALYA = {"FILE_BYTES_MAX": len(CONTENT)}
        look_twice(directory)
        assert all(message.isprintable() for message in caplog.messages)
        assert (len(caplog.messages), len(aside(directory))) == (1, 1)
        settings.ALYA = {}
        put(directory / os.fsdecode(name), CONTENT)
        look_twice(directory)
        assert (BatchFile.objects.filter(is_accepted=True).count(), left(directory)[1:]) == (1, [])


class DeathTests:
    @pytest.mark.rule("INF-13")
    @pytest.mark.parametrize("deaths", [0, 1, 2, 3])
    def test_a_file_that_has_ended_two_processes_is_rejected_unread(self, directory, caplog, deaths) -> None:
        """It is kept where nobody looks at it, and what is behind it is received."""
        folder = directory / ".processing"
        folder.mkdir(mode=0o700)
        (folder / "a.claim").write_text('{"source": "TXN1.csv"}\n' + "." * deaths)
        put(folder / "a.file")
        put(directory / "behind.csv")
        look_twice(directory)
        record = BatchFile.objects.get(file_name="TXN1.csv")
        assert names() == ["TXN1.csv", "behind.csv"]
        if deaths < 2:
            assert (record.is_accepted, left(directory)) == (True, [])
        else:
            assert (record.is_accepted, left(directory)) == (False, [".processing/a.aside"])
            assert record.error_message == f"It has ended the process that received it {deaths} times."
            assert record.unique_key == "watch:a"

    @pytest.mark.rule("INF-13")
    def test_who_is_told_to_stop_is_no_death(self, directory, monkeypatch) -> None:
        """An operator who does not wait for a large file does not have it rejected."""
        put(directory / "TXN1.csv")
        marks = []

        def be_stopped(**options):
            (said,) = (directory / ".processing").glob("*.claim")
            marks.append(said.read_bytes().partition(b"\n")[2])
            watching.stop()
            marks.append(said.read_bytes().partition(b"\n")[2])
            raise OSError("Input/output error")

        watching = watcher(directory)
        watching.cycle()
        monkeypatch.setattr(watch, "process", be_stopped)
        watching.cycle()
        assert marks == [b".", b""]

    @pytest.mark.rule("INF-13")
    def test_a_failure_is_no_death(self, directory, monkeypatch, caplog) -> None:
        """However often a file is tried while the storage is away."""
        caplog.set_level(logging.CRITICAL)
        put(directory / "TXN1.csv")
        monkeypatch.setattr(watch, "BACK_OFF_SECONDS", 0)
        with monkeypatch.context() as patch:
            patch.setattr(watch, "process", lambda **options: 1 / 0)
            watching = look_twice(directory)
            for _ in range(4):
                watching.cycle()
                assert watching.failures == 1
        watching.cycle()
        assert BatchFile.objects.get().is_accepted is True
