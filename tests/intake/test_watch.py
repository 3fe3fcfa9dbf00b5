"""From a directory to batches, a look at a time."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time

import pytest
from django.core.files.storage import FileSystemStorage

from alya_django import BadFile, InvalidInput, Status, batches, register_file_checker
from alya_django.intake import watch
from alya_django.intake.patterns import Mapping, configured_mappings
from alya_django.intake.watch import Watcher
from alya_django.models import Batch, BatchFile
from tests.intake.files import CONTENT, check_amounts, faulty_lines, read, register

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

amounts = itertools.count(1)
ALL = [Mapping("*.csv", "txn")]


@pytest.fixture
def storage(use_storage, tmp_path):
    """An empty storage for this test, beside the directory that is watched."""
    use_storage(FileSystemStorage)
    return tmp_path


@pytest.fixture
def directory(tmp_path):
    """Where files arrive; there is a checker for them."""
    register()
    path = tmp_path / "in"
    path.mkdir()
    return path


def put(path, content=None, *, age=0):
    """Let a file arrive that was last changed some seconds ago; each has a content of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or CONTENT + f"dan,{next(amounts)}.00\n".encode())
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


def watcher(*directories, mappings=ALL, **options):
    return Watcher(directories, mappings, **{"settle_seconds": 0, **options})


def look_twice(*directories, **options):
    """Let a watcher look until it takes what is there."""
    watching = watcher(*directories, **options)
    watching.cycle()
    watching.cycle()
    return watching


def names():
    return sorted(BatchFile.objects.values_list("file_name", flat=True))


def left(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


class ReceiveTests:
    @pytest.mark.rule("INF-2", "INF-7")
    def test_makes_a_batch_and_removes_the_file(self, directory) -> None:
        """Its bytes are in the storage, and the batch knows where they came from."""
        put(directory / "TXN1.csv", CONTENT)
        look_twice(directory)
        record = BatchFile.objects.get()
        assert read(record.object_id) == CONTENT
        assert (record.file_name, record.file_type, record.is_accepted) == ("TXN1.csv", "txn", True)
        assert record.batch.context == {"file_name": "TXN1.csv", "file_type": "txn", "directory": str(directory)}
        assert record.batch.requested_by == "alya_watch"
        assert left(directory) == []

    @pytest.mark.rule("INF-2")
    def test_keeps_a_rejected_file_in_the_storage_alone(self, directory) -> None:
        """With what was found faulty until then."""

        def check(file, file_name, context):
            yield from check_amounts(file, file_name, context)
            raise BadFile("The trailer is missing.")

        register_file_checker("bad", check, app="bank", op="transfer")
        put(directory / "TXN1.csv", CONTENT)
        look_twice(directory, mappings=[Mapping("*.csv", "bad")])
        record = BatchFile.objects.get()
        assert (record.is_accepted, record.error_message) == (False, "The trailer is missing.")
        assert record.object_id.startswith("failed/")
        assert read(record.object_id) == CONTENT
        assert faulty_lines(record.receipt()) == ["3,'x' is no amount"]
        assert left(directory) == []
        assert not Batch.objects.exists()

    @pytest.mark.rule("INF-4")
    def test_one_name_twice_is_two_files(self, directory) -> None:
        """In two directories, and in one after the other."""
        put(directory / "a" / "TXN1.csv", CONTENT + b"eve,1.00\n")
        put(directory / "b" / "TXN1.csv", CONTENT + b"eve,2.00\n")
        look_twice(directory / "a", directory / "b")
        put(directory / "a" / "TXN1.csv", CONTENT + b"eve,3.00\n")
        look_twice(directory / "a", directory / "b")
        assert names() == ["TXN1.csv"] * 3
        assert len(set(BatchFile.objects.values_list("object_id", "batch"))) == 3
        assert {batch.context["directory"] for batch in Batch.objects.all()} == {
            str(directory / "a"),
            str(directory / "b"),
        }

    def test_tells_what_became_of_each(self, directory) -> None:
        """Where it lay, its type and its receipt, the oldest first."""
        told = []
        put(directory / "new.csv", age=10)
        put(directory / "old.csv", age=20)
        look_twice(directory, on_received=lambda *what: told.append(what))
        assert [(source.name, file_type, receipt.accepted) for source, file_type, receipt in told] == [
            ("old.csv", "txn", True),
            ("new.csv", "txn", True),
        ]

    def test_a_name_need_not_be_text(self, directory) -> None:
        """Bytes that are none are written out."""
        put(directory / os.fsdecode(b"\xff.csv"))
        look_twice(directory)
        assert names() == ["\\udcff.csv"]
        assert left(directory) == []


class MatchTests:
    @pytest.mark.rule("INF-3")
    def test_the_first_mapping_wins(self, directory) -> None:
        """A file that matches two is of the first one's type."""
        register_file_checker("other", check_amounts, app="bank", op="transfer")
        put(directory / "TXN1.csv")
        put(directory / "else.csv")
        look_twice(directory, mappings=[Mapping("TXN*.csv", "other"), Mapping("*.csv", "txn")])
        assert dict(BatchFile.objects.values_list("file_name", "file_type")) == {
            "TXN1.csv": "other",
            "else.csv": "txn",
        }

    @pytest.mark.rule("INF-8")
    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("*.csv", ["top.csv"]),
            ("/*.csv", ["top.csv"]),
            ("*/*.csv", ["one.csv"]),
            ("**/*.csv", ["one.csv", "top.csv", "two.csv"]),
            ("a/**", ["one.csv", "two.csv"]),
            ("t[a-o]p.csv", ["top.csv"]),
            ("*.txt", []),
        ],
    )
    def test_a_pattern_is_of_paths_below_the_directory(self, directory, pattern, found) -> None:
        """Two asterisks are any depth."""
        for path in ("top.csv", "a/one.csv", "a/b/two.csv"):
            put(directory / path)
        look_twice(directory, mappings=[Mapping(pattern, "txn")])
        assert names() == found

    @pytest.mark.rule("INF-3")
    def test_directories_may_overlap(self, directory) -> None:
        """What one has taken the other does not find."""
        put(directory / "a" / "TXN1.csv")
        watching = look_twice(directory, directory / "a", mappings=[Mapping("**/*.csv", "txn")])
        assert (names(), watching.failures) == (["TXN1.csv"], 0)

    @pytest.mark.rule("INF-5")
    def test_only_ordinary_files_are_taken(self, directory, tmp_path) -> None:
        """No links, no directories, nothing below either's names, nothing hidden."""
        outside = put(tmp_path / "outside" / "secret.csv")
        (directory / "link.csv").symlink_to(outside)
        (directory / "linked").symlink_to(outside.parent)
        (directory / "folder.csv").mkdir()
        put(directory / ".hidden.csv")
        put(directory / ".hidden" / "TXN1.csv")
        os.mkfifo(directory / "pipe.csv")
        look_twice(directory, mappings=[Mapping("**/*.csv", "txn"), Mapping("linked/*.csv", "txn")])
        assert names() == []
        assert outside.exists()


class SettleTests:
    @pytest.mark.rule("INF-1")
    def test_young_files_are_left(self, directory, monkeypatch) -> None:
        """From the very second on that they are old enough they are taken."""
        put(directory / "TXN1.csv")
        changed = (directory / "TXN1.csv").stat().st_mtime
        watching = watcher(directory, age_seconds=10)
        for now, found in ((changed + 9.9, []), (changed + 9.9, []), (changed + 10, ["TXN1.csv"])):
            monkeypatch.setattr(watch.time, "time", lambda now=now: now)
            watching.cycle()
            assert names() == found

    @pytest.mark.rule("INF-5")
    def test_a_file_that_grows_is_left(self, directory) -> None:
        """Also where its age says that it is done: whoever uploads may preserve times."""
        watching = watcher(directory)
        for length in range(3):
            put(directory / "TXN1.csv", CONTENT * (length + 1), age=3_600)
            watching.cycle()
            assert names() == []
        watching.cycle()
        assert names() == ["TXN1.csv"]

    @pytest.mark.rule("INF-5")
    def test_looks_are_some_time_apart(self, directory, monkeypatch) -> None:
        """However often it is woken: two looks at once would prove nothing."""
        put(directory / "TXN1.csv")
        watching = watcher(directory, settle_seconds=1)
        for now, found in ((50.0, []), (50.9, []), (51.0, ["TXN1.csv"])):
            monkeypatch.setattr(watch.time, "monotonic", lambda now=now: now)
            watching.cycle()
            assert names() == found

    @pytest.mark.rule("INF-9")
    def test_a_file_that_changes_while_it_is_received_is_kept(self, directory, monkeypatch, caplog) -> None:
        """What was read is a batch; what there is now is set aside, and the log says so."""
        put(directory / "TXN1.csv", CONTENT)
        process = watch.process

        def grow(**options):
            receipt = process(**options)
            (held,) = (directory / ".processing").glob("*.file")
            with held.open("ab") as file:
                file.write(b"late,1.00\n")
            return receipt

        monkeypatch.setattr(watch, "process", grow)
        look_twice(directory)
        (aside,) = left(directory)
        assert aside.endswith(".aside")
        assert (directory / aside).read_bytes() == CONTENT + b"late,1.00\n"
        assert caplog.messages == [
            f"{directory}/TXN1.csv was changed while it was received; what it is now is kept as {directory / aside}."
        ]
        look_twice(directory)
        assert Batch.objects.count() == 1

    @pytest.mark.rule("INF-9")
    def test_a_file_that_is_too_large_to_be_stored_is_kept(self, directory, settings, caplog) -> None:
        """It is rejected, and nowhere else: so it is not removed."""
        settings.ALYA = {"FILE_BYTES_MAX": 10}
        put(directory / "TXN1.csv", CONTENT)
        look_twice(directory)
        assert BatchFile.objects.get().is_accepted is False
        (aside,) = left(directory)
        assert (directory / aside).read_bytes() == CONTENT
        assert caplog.messages == [
            f"{directory}/TXN1.csv was not stored; it is kept as {directory / aside}. "
            "The file is larger than 10 bytes, the limit."
        ]


class FailureTests:
    @pytest.mark.rule("INF-2", "INF-10")
    def test_what_fails_waits_and_is_received_later(self, directory, use_storage, monkeypatch, caplog) -> None:
        """A storage that is full costs no file; each failure lets it wait twice as long."""
        put(directory / "TXN1.csv", CONTENT)
        clock = [1_000.0]
        monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(watch, "process", lambda **options: 1 / 0)
        watching = look_twice(directory)
        assert watching.failures == 1
        (message,) = caplog.messages
        assert message.startswith(f"{directory}/TXN1.csv was not received, and is tried again: ZeroDivisionError at ")
        tries = []
        for clock[0] in (1_000.9, 1_001.0, 1_002.9, 1_003.0):
            watching.cycle()
            tries.append(watching.failures)
        assert tries == [0, 1, 0, 1]
        monkeypatch.undo()
        watching.cycle()
        assert (names(), left(directory)) == (["TXN1.csv"], [])
        assert batches.status(BatchFile.objects.get().batch_id).status is Status.QUEUED

    @pytest.mark.rule("INF-10")
    def test_an_error_on_one_file_does_not_stop_the_others(self, directory, monkeypatch) -> None:
        """The cycle goes on."""
        process = watch.process

        def fail_one(**options):
            if options["file_name"] == "a.csv":
                raise OSError("Input/output error")
            return process(**options)

        monkeypatch.setattr(watch, "process", fail_one)
        for name in ("a.csv", "b.csv", "c.csv"):
            put(directory / name)
        watching = look_twice(directory)
        assert (names(), watching.failures) == (["b.csv", "c.csv"], 1)

    @pytest.mark.rule("INF-10")
    def test_several_errors_running_end_the_cycle(self, directory, monkeypatch) -> None:
        """It is not for the files then: those that were not tried stay where they are, and are settled still."""
        for number in range(5):
            put(directory / f"{number}.csv", age=5 - number)
        with monkeypatch.context() as patch:
            patch.setattr(watch, "process", lambda **options: 1 / 0)
            watching = look_twice(directory)
        assert watching.failures == 3
        assert [name for name in left(directory) if name.endswith(".csv")] == ["3.csv", "4.csv"]
        watching.cycle()
        assert names() == ["3.csv", "4.csv"]

    @pytest.mark.rule("INF-10")
    def test_a_claim_that_cannot_be_read_is_told_of_once(self, directory, caplog) -> None:
        """However many there are, what arrives is received; and what they were for, once somebody has mended them."""
        folder = directory / ".processing"
        folder.mkdir(mode=0o700)
        broken = {"a": "", "b": "[]", "c": '{"source": 7}', "d": "\0", "e": '{"source": "other.txt"}'}
        for token, text in broken.items():
            (folder / f"{token}.claim").write_text(text)
            put(folder / f"{token}.file")
        put(directory / "new.csv")
        watching = watcher(directory)
        for _ in range(4):
            watching.cycle()
        assert (names(), watching.failures) == (["new.csv"], 5)
        assert [message.partition(".claim ")[0] for message in sorted(caplog.messages)] == [
            f"{folder}/{token}" for token in broken
        ]
        (folder / "a.claim").write_text('{"source": "mended.csv"}')
        watching.cycle()
        assert (names(), watching.failures) == (["mended.csv", "new.csv"], 4)

    @pytest.mark.rule("INF-6")
    def test_leftovers_are_received_under_their_own_token(self, directory, monkeypatch) -> None:
        """Where all but the removing was done, that is all that is left to do."""
        put(directory / "TXN1.csv", CONTENT)
        with monkeypatch.context() as patch:
            patch.setattr(watch.Claim, "remove", lambda self: 1 / 0)
            look_twice(directory)
        assert (Batch.objects.count(), len(left(directory))) == (1, 2)
        look_twice(directory)
        assert (Batch.objects.count(), left(directory)) == (1, [])

    @pytest.mark.rule("INF-3")
    def test_leaves_what_another_has_in_hand(self, directory, monkeypatch) -> None:
        """A second daemon looks while the first receives: it does nothing to it."""
        put(directory / "TXN1.csv", CONTENT)
        second = watcher(directory)
        process = watch.process

        def look_meanwhile(**options):
            second.cycle()
            second.cycle()
            return process(**options)

        monkeypatch.setattr(watch, "process", look_meanwhile)
        look_twice(directory)
        assert (names(), second.failures, left(directory)) == (["TXN1.csv"], 0, [])

    @pytest.mark.rule("INF-10")
    def test_a_directory_that_is_gone_is_told_of(self, directory, caplog) -> None:
        """The others are looked at all the same, and it again once it is back."""
        gone, other = directory / "gone", directory / "other"
        for path in (gone, other):
            put(path / "TXN1.csv")
        watching = watcher(gone, other)
        gone.rename(directory / "away")
        watching.cycle()
        watching.cycle()
        assert (names(), watching.failures) == (["TXN1.csv"], 1)
        assert caplog.messages[0].startswith(f"{gone} cannot be looked at: ")
        (directory / "away").rename(gone)
        watching.cycle()
        watching.cycle()
        assert names() == ["TXN1.csv", "TXN1.csv"]


class RunTests:
    @pytest.mark.rule("INF-6")
    def test_stops_after_the_file_in_hand(self, directory) -> None:
        """The others stay where they are."""
        put(directory / "a.csv", age=20)
        put(directory / "b.csv", age=10)
        watching = watcher(directory, on_received=lambda *what: watching.stop())
        watching.run(seconds=0.1)
        assert (names(), left(directory)) == (["a.csv"], ["b.csv"])

    @pytest.mark.rule("INF-8")
    def test_looks_by_itself_without_watchfiles(self, directory, monkeypatch) -> None:
        """The extra is not needed."""
        monkeypatch.setitem(sys.modules, "watchfiles", None)
        put(directory / "a.csv")
        watching = watcher(directory, on_received=lambda *what: watching.stop())
        watching.run(seconds=0.01)
        assert names() == ["a.csv"]

    @pytest.mark.rule("INF-8")
    def test_is_woken_by_watchfiles(self, directory) -> None:
        """A file that arrives is seen at once, however long the rest would be."""
        looks = []
        watching = watcher(directory)
        seen = threading.Event()

        def cycle():
            looks.append(left(directory))
            if looks[-1]:
                watching.stop()
            seen.set()

        watching.cycle = cycle
        arrival = threading.Thread(target=lambda: seen.wait(20) and put(directory / "a.csv"))
        arrival.start()
        watching.run(seconds=60)
        arrival.join()
        assert looks[-1] == ["a.csv"]

    @pytest.mark.rule("INF-6")
    def test_once_is_two_looks(self, directory) -> None:
        """They are as far apart as a file must not change for; where there is nothing, one will do."""
        watcher(directory).run_once()
        put(directory / "a.csv")
        watcher(directory).run_once()
        assert names() == ["a.csv"]

    def test_logs_nothing_of_what_goes_well(self, directory, caplog) -> None:
        """The command prints it."""
        caplog.set_level(logging.INFO, "alya_django.intake")
        put(directory / "a.csv")
        look_twice(directory)
        assert caplog.messages == []


class MadeTests:
    @pytest.mark.rule("INF-8")
    def test_needs_a_directory_and_a_pattern(self, directory) -> None:
        """Both are said."""
        with pytest.raises(InvalidInput, match=r"^directories: there is none to watch\.$"):
            watcher()
        with pytest.raises(InvalidInput, match=r"^mappings: there is no pattern to match\.$"):
            watcher(directory, mappings=[])

    @pytest.mark.rule("INF-8")
    def test_names_what_cannot_be_watched(self, directory) -> None:
        """A directory that is missing, and a file."""
        with pytest.raises(InvalidInput, match=r"none cannot be watched: No such file or directory\.$"):
            watcher(directory / "none")
        with pytest.raises(InvalidInput, match=r"a\.csv cannot be watched: Not a directory\.$"):
            watcher(put(directory / "a.csv"))

    @pytest.mark.rule("INF-8")
    @pytest.mark.parametrize("pattern", ["", "/", "../*.csv", "a**/b.csv", "[ab.csv", ".hidden/*.csv"])
    def test_names_a_pattern_that_is_none(self, directory, pattern) -> None:
        """It would match nothing, or lead out of the directory."""
        with pytest.raises(InvalidInput) as caught:
            watcher(directory, mappings=[Mapping(pattern, "txn")])
        assert str(caught.value) == f"mappings: {pattern!r} is no pattern of files below a directory."

    @pytest.mark.rule("INF-8")
    def test_names_a_type_without_a_checker(self, directory) -> None:
        """It would fail for every file."""
        with pytest.raises(InvalidInput) as caught:
            watcher(directory, mappings=[Mapping("*.csv", "tnx")])
        assert str(caught.value) == "mappings: there is no checker for 'tnx', the type of '*.csv'."

    def test_takes_mappings_from_the_settings(self, settings) -> None:
        """In their order."""
        settings.ALYA = {"WATCH_TYPES": [{"pattern": "TXN*.csv", "type": "txn"}, {"pattern": "**", "type": "rest"}]}
        assert configured_mappings() == [Mapping("TXN*.csv", "txn"), Mapping("**", "rest")]
