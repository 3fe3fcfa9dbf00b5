from __future__ import annotations

import hashlib
import itertools
import logging
import mimetypes
import stat
import tracemalloc
from urllib.parse import unquote
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage

from alya_django import (
    BatchInput,
    BatchProcessor,
    RowFailed,
    RowResult,
    Status,
    batches,
    outputs,
    register_batch_processor,
)
from alya_django.intake import objects
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.local_storage import files_in, read, use_storage
from tests.processors import Recording, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

# Names that a careless join with a folder, a file system or a URL would take for something else.
LOGICAL_NAMES = [
    "late.csv",
    "a/b.csv",
    "/etc/passwd",
    "../../up.csv",
    "..",
    ".",
    "./x",
    ".hidden",
    "...",
    " ",
    " a b ",
    "\t",
    "a\nb",
    "C:\\x.csv",
    "a%2Fb",
    "%2E%2E",
    "späte Flüge ✈️.csv",
    "日本語" * 30,
    "x" * 300,
    "ü" * 300,
    "a?b#c&d=e+f",
    "*'\"<>|:",
    "con",
    "~",
    "-rf",
    "a.",
]


class PickyStorage(FileSystemStorage):
    """A storage that cannot list, and will not delete."""

    # Django's own answer of a storage that cannot.
    listdir = Storage.listdir

    def delete(self, name):
        raise PermissionError("no deleting here")


class GroupStorage(FileSystemStorage):
    """A storage whose class says who may read."""

    file_permissions_mode = 0o640


FILES = "django.core.files.storage.FileSystemStorage"


def written(registry, *rows) -> dict[str, bytes]:
    """Return the output files of a batch whose rows contribute these texts."""
    register_batch_processor("bank", "write", write_lines)
    batch_id = batches.submit("bank", "write", rows)
    assert drain() == len(rows)
    check_invariants()
    return {name: read(batch_id, name) for name in batches.status(batch_id).output_files}


class ModeTests:
    @pytest.mark.rule("SEC-5")
    @pytest.mark.parametrize(
        ("backend", "options", "file_mode", "directory_mode"),
        [
            (FILES, {}, 0o600, 0o700),
            (FILES, {"file_permissions_mode": 0o644}, 0o644, 0o700),
            (FILES, {"file_permissions_mode": 0o640, "directory_permissions_mode": 0o750}, 0o640, 0o750),
            (f"{__name__}.GroupStorage", {}, 0o640, 0o700),
        ],
    )
    def test_nobody_else_reads_what_is_stored(
        self, registry, settings, tmp_path, backend, options, file_mode, directory_mode
    ):
        """Output files and received files alike; what the project keeps in the same storage is as it was."""
        use_storage(settings, backend, location=tmp_path / "kept", **options)
        written(registry, {"a.csv": "x"})
        objects.save("incoming/token/b.csv", ContentFile(b"x"))
        objects.replace("failed/token/c.csv", ContentFile(b"x"))
        folder = tmp_path / "kept"
        stored = {path.name: modes_of(path) for path in folder.rglob("*.csv")}
        assert stored == dict.fromkeys(("a.csv", "b.csv", "c.csv"), file_mode)
        assert {modes_of(path) for path in (folder, *folder.rglob("*")) if path.is_dir()} == {directory_mode}
        outputs.storage().save("own.txt", ContentFile(b"x"))
        assert modes_of(folder / "own.txt") == (file_mode if file_mode != 0o600 else 0o644)


def modes_of(path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


class ObjectNameTests:
    @pytest.mark.rule("OUT-4")
    @pytest.mark.parametrize("logical_name", LOGICAL_NAMES, ids=lambda name: ascii(name)[:20])
    def test_stays_below_the_prefix(self, logical_name):
        """Whatever the logical name, the object is one plain name in the attempt's folder."""
        batch_id, attempt = uuid4(), uuid4()
        name = outputs.object_name(batch_id, attempt, logical_name)
        *parents, last = name.split("/")
        assert parents == ["alya", str(batch_id), attempt.hex]
        assert last.isascii()
        assert last.isprintable()
        assert not set(last) & set(' /\\?#*"<>|:')
        assert not last.startswith(".")
        assert 0 < len(last) <= 200

    @pytest.mark.rule("OUT-4")
    def test_can_be_read_by_people(self):
        """A short name is percent-encoded, so that it can be decoded."""
        for logical_name in LOGICAL_NAMES:
            last = outputs.object_name(uuid4(), uuid4(), logical_name).rpartition("/")[2]
            if len(last) < 200:
                assert unquote(last) == logical_name

    @pytest.mark.rule("OUT-4")
    def test_cuts_a_long_name_and_ends_it_in_its_digest(self):
        """Over 200 bytes a name is cut; 8 hex digits of the whole name's SHA-256 keep it apart from others."""
        for logical_name in ("x" * 201, "x" * 300, "ü" * 300):
            last = outputs.object_name(uuid4(), uuid4(), logical_name).rpartition("/")[2]
            assert len(last) == 200
            assert last.endswith(hashlib.sha256(logical_name.encode()).hexdigest()[:8])
        assert outputs.object_name(uuid4(), uuid4(), "x" * 200).endswith("/" + "x" * 200)

    @pytest.mark.rule("OUT-4")
    def test_differs_where_the_logical_name_differs(self):
        """Long names with a common beginning are kept apart as well."""
        names = [*LOGICAL_NAMES, "x" * 300 + "1", "x" * 300 + "2"]
        batch_id, attempt = uuid4(), uuid4()
        assert len({outputs.object_name(batch_id, attempt, name) for name in names}) == len(names)

    @pytest.mark.rule("OUT-4")
    def test_of_a_cut_name_is_that_of_no_other(self):
        """A logical name that looks like another one's cut form does not get its object."""
        long = "x" * 300
        batch_id, attempt = uuid4(), uuid4()
        name = outputs.object_name(batch_id, attempt, long)
        assert outputs.object_name(batch_id, attempt, name.rpartition("/")[2]) != name

    @pytest.mark.parametrize(
        ("prefix", "expected"), [("out", "out/"), ("a/b", "a/b/"), ("", ""), ("/out", "out/"), ("out/", "out/")]
    )
    def test_begins_with_the_prefix_that_is_set(self, settings, prefix, expected):
        """OUTPUT_PREFIX is a folder in the storage, with or without slashes around it; it may be deep, or none."""
        settings.ALYA = {"OUTPUT_PREFIX": prefix}
        batch_id, attempt = uuid4(), uuid4()
        name = outputs.object_name(batch_id, attempt, "a.csv")
        assert name == f"{expected}{batch_id}/{attempt.hex}/a.csv"

    @pytest.mark.rule("OUT-5")
    @pytest.mark.parametrize("logical_name", ["a.csv", "späte Flüge.csv", "x/y.csv"])
    def test_lets_the_storage_guess_the_content_type(self, logical_name):
        """A storage guesses the content type from the object's name: the ending survives."""
        name = outputs.object_name(uuid4(), uuid4(), logical_name)
        assert mimetypes.guess_type(name) == ("text/csv", None)


class SaveTests:
    @pytest.mark.rule("OUT-5")
    def test_returns_the_name_that_the_storage_kept(self, folder):
        """A storage may change a name that is taken; what it returns is the object."""
        batch_id, attempt = uuid4(), uuid4()
        first = outputs.save(batch_id, attempt, "a.csv", ContentFile(b"first"))
        second = outputs.save(batch_id, attempt, "a.csv", ContentFile(b"second"))
        assert first == f"alya/{batch_id}/{attempt.hex}/a.csv"
        assert second != first
        assert files_in(folder) == {first, second}

    @pytest.mark.rule("OUT-4")
    @pytest.mark.parametrize("logical_name", LOGICAL_NAMES, ids=lambda name: ascii(name)[:20])
    def test_writes_nothing_outside_the_prefix(self, folder, logical_name):
        """A file of any name lies in its attempt's folder, and can be read back."""
        batch_id, attempt = uuid4(), uuid4()
        name = outputs.save(batch_id, attempt, logical_name, ContentFile(b"content"))
        assert files_in(folder.parent) == {f"storage/{name}"}
        assert name.startswith(f"alya/{batch_id}/{attempt.hex}/")
        with outputs.storage().open(name) as file:
            assert file.read() == b"content"

    def test_uses_the_storage_that_is_set(self, settings, tmp_path):
        """STORAGE is an alias of STORAGES."""
        settings.STORAGES = {
            **settings.STORAGES,
            "outputs": {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": tmp_path / "outputs"},
            },
        }
        settings.ALYA = {"STORAGE": "outputs"}
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"x"))
        assert files_in(tmp_path) == {f"outputs/{name}"}


class DeleteTests:
    def test_deletes_objects(self, folder):
        """What is named is gone, the rest stays."""
        batch_id, attempt = uuid4(), uuid4()
        names = [outputs.save(batch_id, attempt, name, ContentFile(b"x")) for name in ("a", "b", "c")]
        outputs.delete(names[:2])
        assert files_in(folder) == {names[2]}

    def test_goes_on_after_an_object_that_stays(self, settings, tmp_path, caplog):
        """An object that cannot be deleted is logged, and fails nothing."""
        use_storage(settings, f"{__name__}.PickyStorage", location=tmp_path)
        with caplog.at_level(logging.WARNING, "alya_django"):
            outputs.delete(["a", "b"])
        told = [message.partition(": ")[0] for message in caplog.messages]
        assert told == ["The object a could not be deleted", "The object b could not be deleted"]


class DeleteOtherAttemptsTests:
    def test_leaves_only_this_attempt_s_objects(self, folder):
        """Objects of other attempts at the batch go, with their folders; other batches keep theirs."""
        batch_id, attempt = uuid4(), uuid4()
        mine = {outputs.save(batch_id, attempt, name, ContentFile(b"x")) for name in ("a", "../b")}
        others = {outputs.save(uuid4(), uuid4(), "a", ContentFile(b"x"))}
        for _ in range(2):
            other = uuid4()
            for name in ("a", "ü/b"):
                outputs.save(batch_id, other, name, ContentFile(b"x"))
        outputs.delete_other_attempts(batch_id, attempt)
        assert files_in(folder) == mine | others
        assert [path.name for path in (folder / "alya" / str(batch_id)).iterdir()] == [attempt.hex]

    def test_needs_no_object_of_its_own(self, folder):
        """A batch without output files clears up after other attempts as well."""
        batch_id = uuid4()
        outputs.save(batch_id, uuid4(), "a", ContentFile(b"x"))
        outputs.delete_other_attempts(batch_id, uuid4())
        assert files_in(folder) == set()

    @pytest.mark.parametrize("backend", ["picky", "empty"])
    def test_bears_a_storage_that_cannot_list(self, settings, tmp_path, caplog, backend):
        """What cannot be listed stays, and is logged."""
        if backend == "picky":
            use_storage(settings, f"{__name__}.PickyStorage", location=tmp_path)
        else:
            use_storage(settings, "django.core.files.storage.FileSystemStorage", location=tmp_path)
        batch_id, attempt = uuid4(), uuid4()
        with caplog.at_level(logging.WARNING, "alya_django"):
            outputs.delete_other_attempts(batch_id, attempt)
        (message,) = caplog.messages
        assert message.startswith(f"What lies in alya/{batch_id} could not be looked at: ")


class DeleteAttemptTests:
    def test_deletes_the_objects_of_one_attempt(self, folder):
        """An attempt that did not win takes its own objects away, and no other's."""
        batch_id, attempt, winner = uuid4(), uuid4(), uuid4()
        won = outputs.save(batch_id, winner, "a", ContentFile(b"x"))
        for name in ("a", "ü/b"):
            outputs.save(batch_id, attempt, name, ContentFile(b"x"))
        outputs.delete_attempt(batch_id, attempt)
        assert files_in(folder) == {won}


class OutputFileTests:
    @pytest.mark.rule("OUT-1")
    def test_has_the_lines_in_the_order_of_lines(self, registry):
        """Whatever the order in which rows were submitted, a file is in the order of lines."""
        order = [30, 4, 100, 1, 17, 2]
        files = written(registry, *(BatchInput(line, {"a.csv": f"line {line}"}) for line in order))
        assert files == {"a.csv": b"line 1\nline 2\nline 4\nline 17\nline 30\nline 100\n"}

    @pytest.mark.rule("OUT-1", "OUT-6")
    def test_has_the_lines_of_many_rows(self, registry):
        """Thousands of rows, read in blocks, lose none and mix none."""
        rows = 4_500
        files = written(registry, *({"a.csv": f"{n}", f"{n % 3}.csv": f"{n}"} for n in range(rows)))
        assert files["a.csv"].decode().split() == [str(n) for n in range(rows)]
        for third in range(3):
            assert files[f"{third}.csv"].decode().split() == [str(n) for n in range(third, rows, 3)]

    @pytest.mark.rule("OUT-1")
    def test_has_the_lines_of_failed_rows(self, registry):
        """A row that failed may contribute too; one that raised has nothing to give."""

        def fail_some(row):
            if row.line == 1:
                return RowResult.success(output_lines={"a.csv": "good"})
            if row.line == 2:
                return RowResult.failed("odd", output_lines={"a.csv": "bad"})
            raise RowFailed("odd")

        register_batch_processor("bank", "fail", fail_some)
        batch_id = batches.submit("bank", "fail", range(3))
        drain()
        assert batches.status(batch_id).status is Status.FAILED
        assert read(batch_id, "a.csv") == b"good\nbad\n"
        check_invariants()

    @pytest.mark.rule("OUT-1")
    def test_has_nothing_of_aborted_rows(self, registry, folder):
        """An aborted batch leaves no file, also of rows that had ended."""

        class AbortThird(BatchProcessor):
            chunk_rows = 1

            def do_batch_job(self, row):
                if row.line == 3:
                    batches.abort(row.batch_id)
                return RowResult.success(output_lines={"a.csv": "x"})

        register_batch_processor("bank", "write", AbortThird)
        batch_id = batches.submit("bank", "write", range(4))
        drain()
        assert batches.result(batch_id).output_files == {}
        assert files_in(folder.parent) == set()
        check_invariants()

    @pytest.mark.rule("OUT-2")
    def test_is_not_made_of_empty_contributions(self, registry):
        """An empty text adds nothing, and a file of nothing else is not made."""
        files = written(registry, {"a.csv": "", "b.csv": "1"}, {}, {"b.csv": ""}, {"b.csv": "2"})
        assert files == {"b.csv": b"1\n2\n"}

    @pytest.mark.rule("OUT-2")
    def test_is_not_made_without_contributions(self, registry, folder):
        """A batch whose rows contribute nothing has no files, and nothing is stored."""
        register_batch_processor("bank", "echo", Recording())
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        assert batches.status(batch_id).output_files == {}
        assert files_in(folder.parent) == set()
        check_invariants()

    @pytest.mark.rule("OUT-3")
    @pytest.mark.parametrize(
        ("text", "stored"),
        [
            ("x", b"x\n"),
            ("x\n", b"x\n"),
            ("x\n\n", b"x\n\n"),
            ("\n", b"\n"),
            ("x\r\n", b"x\r\n"),
            ("x\r", b"x\r\n"),
            ("  x  ", b"  x  \n"),
            (" ", b" \n"),
            ("\t", b"\t\n"),
            ("a\nb", b"a\nb\n"),
            ("ü ✈️ 日本語", "ü ✈️ 日本語\n".encode()),
            ("\ufeffx", b"\xef\xbb\xbfx\n"),
            ("a\u2028b\x0bc", "a\u2028b\x0bc\n".encode()),
            ("\\n", b"\\n\n"),
        ],
        ids=ascii,
    )
    def test_keeps_a_text_and_ends_it_in_a_newline(self, registry, text, stored):
        """A text is written as it is, in UTF-8; a newline is added where it has none."""
        assert written(registry, {"a.txt": text}) == {"a.txt": stored}

    @pytest.mark.rule("OUT-4")
    def test_has_any_name(self, registry, folder):
        """Names with slashes, dots, blanks or other alphabets, short and long, work side by side."""
        files = written(registry, {name: name for name in LOGICAL_NAMES})
        assert files == {name: f"{name}\n".encode() for name in LOGICAL_NAMES}
        stored = files_in(folder.parent)
        assert len(stored) == len(LOGICAL_NAMES)
        assert all(name.startswith("storage/alya/") for name in stored)

    @pytest.mark.rule("OUT-4")
    @pytest.mark.parametrize(
        "output_lines",
        [
            {"a.csv": 5},
            {"a.csv": None},
            {"a.csv": b"x"},
            {"a.csv": ["x"]},
            {"": "x"},
            {5: "x"},
            {None: "x"},
            {"a\0": "x"},
            {"a": "\0"},
            {"\ud800": "x"},
            {"a": "\ud800"},
            [("a", "x")],
            "x",
        ],
        ids=ascii,
    )
    def test_of_something_else_fails_its_row(self, registry, output_lines):
        """What is no text, or has no name, fails the row when it is processed, and no other."""

        def write(row):
            return RowResult.success(output_lines=output_lines if row.line == 1 else {"b.csv": "x"})

        register_batch_processor("bank", "write", write)
        batch_id = batches.submit("bank", "write", range(2))
        assert drain(raise_errors=False) == 2
        first, second = batches.result(batch_id).rows
        assert (first.status, second.status) == (Status.FAILED, Status.SUCCESS)
        assert [(message.msgid, message.errcode) for message in first.messages] == [(10, "processing_error")]
        assert read(batch_id, "b.csv") == b"x\n"
        check_invariants()

    @pytest.mark.rule("OUT-4")
    def test_is_one_of_a_thousand_at_most(self, registry, settings):
        """A row that would begin a file over OUTPUT_FILES_MAX fails; names that exist already go on."""
        settings.ALYA = {"OUTPUT_FILES_MAX": 2}
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a": "1", "b": "1"}, {"c": "2"}, {"b": "3"}, {"c": ""}])
        drain(raise_errors=False)
        result = batches.result(batch_id)
        assert [row.line for row in result.rows if row.status is Status.FAILED] == [2]
        (message,) = result.rows[1].messages
        assert (message.msgid, message.errcode) == (10, "processing_error")
        assert message.vals == ("ValueError: The batch would have more than 2 output files.",)
        assert {name: read(batch_id, name) for name in result.output_files} == {"a": b"1\n", "b": b"1\n3\n"}
        check_invariants()

    @pytest.mark.rule("OUT-5")
    def test_is_named_everywhere_alike(self, registry, folder):
        """Status, result and mark_done map the logical name to the same object of the storage."""

        class Writing(Recording):
            def do_batch_job(self, row):
                return RowResult.success(output_lines={"a b.csv": "x"})

        recording = Writing()
        register_batch_processor("bank", "write", recording)
        batch_id = batches.submit("bank", "write", [1])
        drain()
        files = batches.status(batch_id).output_files
        assert list(files) == ["a b.csv"]
        assert batches.result(batch_id).output_files == files
        assert recording.done[0].output_files == files
        assert files_in(folder) == set(files.values())
        assert files["a b.csv"].startswith(f"alya/{batch_id}/")
        check_invariants()

    @pytest.mark.rule("OUT-6")
    def test_is_opened_as_a_stream(self, registry):
        """A file is read line by line or piece by piece, never as a whole."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x" * 99_999}] * 100)
        drain()
        with batches.open_output(batch_id, "a.csv") as file:
            tracemalloc.start()
            try:
                size = sum(map(len, iter(lambda: file.read(10_000), b"")))
                file.seek(0)
                lines = sum(1 for _ in itertools.islice(file, 5))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert (size, lines) == (10_000_000, 5)
        assert peak < 2_000_000
        check_invariants()
