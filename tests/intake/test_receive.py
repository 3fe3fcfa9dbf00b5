"""From a file to its batch or its rejection: the record, the object and the rows."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from copy import deepcopy

import pytest
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import SimpleUploadedFile

from alya_django import (
    BadFile,
    BatchInput,
    FaultyLine,
    InvalidInput,
    NotFound,
    Receipt,
    Status,
    batches,
    register_batch_processor,
    register_file_checker,
)
from alya_django.intake import receive as receive_module
from alya_django.models import Batch, BatchFile, BatchRow
from alya_django.testing import drain
from tests.intake.files import CONTENT, check_amounts, read, receive, register
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]


class FullStorage(FileSystemStorage):
    """A storage that saves nothing."""

    def save(self, *arguments, **keywords):
        raise OSError("No space left on device")


class BrokenStorage(FileSystemStorage):
    """A storage of which nothing can be read."""

    def open(self, *arguments, **keywords):
        return File(BrokenFile())


class BrokenFile(io.RawIOBase):
    def read(self, size=-1):
        raise OSError("Input/output error")


class Pipe:
    """What can be read, once, and nothing else."""

    def __init__(self, content: bytes) -> None:
        self.read = io.BytesIO(content).read


def objects(storage) -> list[str]:
    return sorted(path.relative_to(storage).as_posix() for path in storage.rglob("*") if path.is_file())


def nothing_submitted() -> bool:
    return not Batch.objects.exists() and not BatchRow.objects.exists()


class AcceptTests:
    @pytest.mark.rule("FXR-3")
    def test_makes_a_batch_of_the_good_lines(self):
        """The rows have the lines of the file, the batch the checker's app and op and the name of the file."""
        register()
        receipt = receive(requested_by="eve")
        batch = Batch.objects.get(pk=receipt.batch_id)
        assert (receipt.accepted, receipt.reason, receipt.nrows, receipt.nfaulty) == (True, "", 2, 1)
        assert (batch.app, batch.op, batch.status, batch.nrows) == ("bank", "transfer", Status.QUEUED, 2)
        assert (batch.input_file, batch.requested_by) == ("TXN 1.csv", "eve")
        assert list(BatchRow.objects.order_by("line").values_list("line", "input")) == [
            (2, {"debtor": "ann", "amount": "1.00"}),
            (4, {"debtor": "cid", "amount": "3.00"}),
        ]

    @pytest.mark.rule("FXR-3")
    def test_records_what_was_received(self):
        """The record says what the bytes are, where they lie, and which batch they became."""
        register()
        receipt = receive()
        record = BatchFile.objects.get(pk=receipt.file_id)
        assert (record.batch_id, record.is_accepted, record.error_message) == (receipt.batch_id, True, "")
        assert (record.file_name, record.file_type, record.content_type) == ("TXN 1.csv", "txn", "text/csv")
        assert (record.size, record.checksum) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
        assert (record.object_id, record.error_object_id) == (receipt.object_id, receipt.error_object_id)
        assert record.received_at <= record.processed_at
        assert read(record.object_id) == CONTENT
        assert read(record.error_object_id) == b"line,reason\n3,'x' is no amount\n"

    def test_its_rows_are_processed_as_any(self):
        """A batch of a file runs to its end."""
        register()
        register_batch_processor("bank", "transfer", lambda row: row.input["amount"])
        receipt = receive()
        drain()
        assert batches.status(receipt.batch_id).status is Status.SUCCESS
        check_invariants()

    def test_can_be_kept_back(self):
        """A batch that waits is released as any."""
        register()
        receipt = receive(wait=True)
        assert batches.status(receipt.batch_id).status is Status.WAIT
        assert batches.release(receipt.batch_id) == 2

    @pytest.mark.rule("FXR-2")
    def test_context_goes_through_the_checker(self):
        """The checker gets the caller's context and the file's name; what it leaves in its copy is the batch's."""
        given = {"sender": {"name": "ann"}}
        seen = []

        def check(file, file_name, context):
            seen.append((file_name, deepcopy(context)))
            context["sender"]["name"] = "bob"
            yield BatchInput(1, {})
            context["trailer"] = 7

        register(check)
        receipt = receive(context=given)
        assert seen == [("TXN 1.csv", {"sender": {"name": "ann"}})]
        assert given == {"sender": {"name": "ann"}}
        assert Batch.objects.get(pk=receipt.batch_id).context == {"sender": {"name": "bob"}, "trailer": 7}

    @pytest.mark.rule("FXR-2")
    @pytest.mark.parametrize(
        "file",
        [
            CONTENT,
            CONTENT.decode(),
            bytearray(CONTENT),
            io.BytesIO(CONTENT),
            SimpleUploadedFile("other.csv", CONTENT),
            Pipe(CONTENT),
        ],
        ids=lambda file: type(file).__name__,
    )
    def test_takes_content_however_it_comes(self, file):
        """The checker and the storage get the same bytes, from the beginning."""
        seen = []

        def check(file, file_name, context):
            seen.append(file.read())
            yield BatchInput(1, {})

        register(check)
        if hasattr(file, "seek"):
            file.read(3)
        receipt = receive(file)
        assert seen == [CONTENT]
        assert read(receipt.object_id) == CONTENT

    @pytest.mark.rule("FXR-2")
    def test_takes_an_object_that_is_stored(self, storage):
        """An accepted object stays where it is."""
        register()
        (storage / "from").mkdir()
        (storage / "from" / "sender.csv").write_bytes(CONTENT)
        receipt = receive(None, stored="from/sender.csv")
        assert (receipt.accepted, receipt.nrows, receipt.object_id) == (True, 2, "from/sender.csv")
        assert objects(storage) == sorted(["from/sender.csv", receipt.error_object_id])

    def test_of_a_stored_object_that_was_accepted_is_told(self, storage):
        """The same object once more is no second batch."""
        register()
        first = receive()
        assert receive(None, stored=first.object_id) == first
        assert Batch.objects.count() == 1

    def test_an_input_that_json_cannot_hold_is_a_faulty_line(self):
        """Neither NUL characters nor floats that are no number reach the database, and the others go on."""

        def check(file, file_name, context):
            yield BatchInput(1, {"a": "x\0y"})
            yield BatchInput(2, {"a": float("nan")})
            yield BatchInput(3, None)

        register(check)
        receipt = receive()
        assert (receipt.nrows, receipt.nfaulty) == (1, 2)
        assert read(receipt.error_object_id).decode().splitlines()[1:] == [
            "1,input.a: a NUL character cannot be stored as JSON.",
            "2,input.a: NaN cannot be stored as JSON.",
        ]
        assert list(BatchRow.objects.values_list("line", "input")) == [(3, {})]

    def test_a_reason_need_not_be_a_text(self):
        """Whatever the checker gives is written; what a spreadsheet would compute is made harmless."""
        register(lambda *arguments: [BatchInput(1, {}), FaultyLine(2, ValueError("x")), FaultyLine(3, "=1+1 \ud800")])
        assert read(receive("\ud800").error_object_id) == b"line,reason\n2,x\n3,'=1+1 \\ud800\n"


class RejectTests:
    @pytest.mark.rule("FXR-4")
    @pytest.mark.parametrize("is_stored", [False, True])
    def test_keeps_what_it_refuses(self, storage, is_stored, django_capture_on_commit_callbacks):
        """A file that the checker refuses ends among the failed, with its reason and the lines found faulty so far."""

        def check(file, file_name, context):
            yield BatchInput(1, {})
            yield FaultyLine(2, "is odd")
            raise BadFile("The trailer is missing.")

        register(check)
        (storage / "in.csv").write_bytes(CONTENT)
        with django_capture_on_commit_callbacks(execute=True):
            receipt = receive(None, stored="in.csv") if is_stored else receive()
        record = BatchFile.objects.get(pk=receipt.file_id)
        assert (receipt.accepted, receipt.batch_id) == (False, None)
        assert (receipt.reason, receipt.nrows, receipt.nfaulty) == ("The trailer is missing.", 0, 1)
        assert (record.is_accepted, record.batch, record.error_message) == (False, None, "The trailer is missing.")
        assert record.object_id.startswith("failed/")
        assert read(receipt.object_id) == CONTENT
        assert read(receipt.error_object_id) == b"line,reason\n2,is odd\n"
        kept = {receipt.object_id, receipt.error_object_id} | (set() if is_stored else {"in.csv"})
        assert set(objects(storage)) == kept
        assert nothing_submitted()

    @pytest.mark.rule("FXR-7")
    def test_refuses_a_file_without_a_usable_line(self):
        """Not even an empty batch comes of it."""
        register()
        receipt = receive(b"debtor,amount\nann,x\n")
        assert (receipt.accepted, receipt.reason, receipt.nfaulty) == (False, "The file has no usable line.", 1)
        assert nothing_submitted()

    @pytest.mark.rule("FXR-8")
    def test_refuses_a_file_at_which_the_checker_fails(self, caplog):
        """What the checker raises is recorded with the file; where it was raised is in the log, for who mends it."""

        def check(file, file_name, context):
            yield BatchInput(1, {})
            raise KeyError("amount")

        register(check)
        assert receive().reason == "The checker failed: KeyError: 'amount'"
        assert nothing_submitted()
        (message,) = caplog.messages
        assert message.startswith(
            "A checker failed after line 1, its file is rejected: KeyError at tests.intake.test_receive:"
        )

    @pytest.mark.rule("FXR-1")
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (None, "The checker failed: TypeError: 'NoneType' object is not iterable"),
            ([7], "The checker failed: TypeError: it yields a BatchInput or a FaultyLine, not 7"),
            ([BatchInput(0, {})], "line 0: a line is a number from 1 to 2147483647."),
            ([BatchInput(1, {}), BatchInput(1, {})], "line 1: the batch has this line twice."),
        ],
    )
    def test_refuses_what_no_checker_may_yield(self, answer, reason):
        """A mistake of the checker submits nothing and is named."""
        register(lambda file, file_name, context: answer)
        assert receive().reason == reason
        assert nothing_submitted()

    def test_refuses_a_context_that_json_cannot_hold(self):
        """What a checker leaves in the context is checked as the caller's is."""

        def check(file, file_name, context):
            context["when"] = {1}
            yield BatchInput(1, {})

        register(check)
        assert receive().reason == "context.when: a value of type set cannot be stored as JSON."
        assert nothing_submitted()

    def test_can_be_offered_again(self, storage):
        """A rejected file is checked again by the name of its object, once its checker has been mended."""
        is_mended = []

        def check(file, file_name, context):
            if not is_mended:
                raise BadFile("It is Monday.")
            yield BatchInput(1, {})

        register(check)
        first = receive()
        again = receive(None, stored=first.object_id)
        assert (again.file_id, again.accepted, again.reason) == (first.file_id, False, "It is Monday.")
        is_mended.append(True)
        last = receive(None, stored=again.object_id)
        assert (last.file_id, last.accepted, last.reason) == (first.file_id, True, "")

    @pytest.mark.rule("FXR-18")
    @pytest.mark.parametrize("prefix", ["failed", ""])
    def test_leaves_nothing_of_an_earlier_decision(
        self, storage, settings, prefix, django_capture_on_commit_callbacks
    ):
        """Of one that is checked again there is the object, and what names the lines that are faulty now."""
        settings.ALYA = {"FAILED_PREFIX": prefix}
        faulty = []

        def check(file, file_name, context):
            yield from (FaultyLine(number, reason) for number, reason in enumerate(faulty, 1))
            raise BadFile("It is Monday.")

        register(check)
        for faulty[:] in (["a", "b"], ["c"], []):
            stored = BatchFile.objects.values_list("object_id", flat=True).first()
            with django_capture_on_commit_callbacks(execute=True):
                receipt = receive(None, stored=stored) if stored else receive()
            assert receipt.nfaulty == len(faulty)
            assert set(objects(storage)) == {receipt.object_id, receipt.error_object_id} - {""}
            assert read(receipt.object_id) == CONTENT


class DuplicateTests:
    @pytest.mark.rule("FXR-6")
    def test_refuses_the_same_content_for_the_same_type(self):
        """The second file is rejected, whatever its name, and its record says where the first went."""
        register()
        first = receive()
        second = receive(file_name="TXN 2.csv")
        assert not second.accepted
        assert second.reason.startswith("The same content was accepted before: TXN 1.csv, received 20")
        assert second.reason.endswith(f", batch {first.batch_id}.")
        assert Batch.objects.count() == 1

    @pytest.mark.rule("FXR-6")
    def test_takes_it_for_another_type_or_when_told_to(self):
        """What is no duplicate: another type, content that was rejected before, and what is allowed to be one."""
        register()
        register_file_checker("fees", check_amounts, app="bank", op="fees")
        assert receive(b"nothing").accepted is False
        assert receive(b"nothing").reason == "The file has no usable line."
        answers = [receive(), receive(file_type="fees"), receive(allow_duplicate=True), receive(allow_duplicate=True)]
        assert [answer.accepted for answer in answers] == [True] * 4
        assert not receive().accepted

    @pytest.mark.rule("FXR-18")
    def test_a_unique_key_makes_a_call_that_may_be_repeated(self):
        """Called once more with the same key, accepted or rejected, it tells of the first time."""
        register()
        accepted, rejected = receive(unique_key="a"), receive(b"nothing", unique_key="b")
        assert receive(unique_key="a") == accepted
        assert receive(b"nothing", unique_key="b") == rejected
        assert BatchFile.objects.count() == 2


class ArgumentTests:
    @pytest.mark.rule("FXR-1")
    def test_a_type_without_a_checker_is_an_error(self, storage):
        """Nothing is stored for it."""
        with pytest.raises(NotFound) as caught:
            receive(file_type="txt")
        assert str(caught.value) == "There is no checker for the file type 'txt'."
        assert objects(storage) == []
        assert not BatchFile.objects.exists()

    @pytest.mark.rule("FXR-1")
    def test_an_object_that_is_missing_is_an_error(self):
        """The checker is not called and there is no record."""
        register(lambda file, file_name, context: pytest.fail("called"))
        with pytest.raises(NotFound) as caught:
            receive(None, stored="none.csv")
        assert str(caught.value) == "There is no object 'none.csv' in the storage."
        assert not BatchFile.objects.exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"file": None}, "file: give either the file or the name of the stored object."),
            ({"stored": "a.csv"}, "file: give either the file or the name of the stored object."),
            ({"file": 7}, "file: must be content, or open to be read, not int."),
            ({"file": io.StringIO("x")}, "file: is open as text; open it to be read as bytes."),
            ({"file_name": ""}, "file_name: must be a text that is not empty, not ''."),
            ({"file_name": None}, "file_name: must be a text that is not empty, not None."),
            ({"context": []}, "context: must be a JSON object, not list."),
            ({"unique_key": ""}, "unique_key: is empty; None is no key."),
            ({"requested_by": 7}, "requested_by: must be a string, not int."),
        ],
    )
    def test_names_what_is_wrong(self, arguments, message):
        """Bad arguments are errors of the caller; no file is rejected for them."""
        register()
        with pytest.raises(InvalidInput) as caught:
            receive(**arguments)
        assert str(caught.value) == message
        assert nothing_submitted()


class ChangeTests:
    """Files that do not stay what they are."""

    @pytest.mark.rule("FXR-24")
    @pytest.mark.parametrize("change", [CONTENT + b"dan,4.00\n", CONTENT[:-3], CONTENT.replace(b"1.00", b"9.00")])
    def test_refuses_an_object_that_changes_while_it_is_read(self, storage, change):
        """One that grows, shrinks or is written over is rejected: its rows are not those of what is kept."""

        def check(file, file_name, context):
            yield from check_amounts(file, file_name, context)
            (storage / "in.csv").write_bytes(change)

        register(check)
        (storage / "in.csv").write_bytes(CONTENT)
        receipt = receive(None, stored="in.csv")
        assert (receipt.accepted, receipt.reason) == (False, "The object has changed while it was read.")
        assert nothing_submitted()

    @pytest.mark.rule("FXR-24")
    def test_an_object_that_vanishes_while_it_is_read_makes_no_batch(self, storage):
        """What cannot be looked at again later is not accepted; the record stays, and says that nothing is decided."""

        def check(file, file_name, context):
            yield from check_amounts(file, file_name, context)
            (storage / "in.csv").unlink()

        register(check)
        (storage / "in.csv").write_bytes(CONTENT)
        with pytest.raises(NotFound) as caught:
            receive(None, stored="in.csv")
        assert str(caught.value) == "There is no object 'in.csv' in the storage."
        assert BatchFile.objects.get().is_accepted is None
        assert nothing_submitted()

    @pytest.mark.rule("FXR-24")
    def test_of_a_file_that_grows_what_was_read_is_kept(self, tmp_path, storage):
        """A file is read once, to be stored; the checker sees what was stored, and so does the checksum."""
        path = tmp_path / "growing.csv"
        path.write_bytes(CONTENT)

        def check(file, file_name, context):
            with path.open("ab") as growing:
                growing.write(b"dan,4.00\n")
            yield from check_amounts(file, file_name, context)

        register(check)
        with path.open("rb") as file:
            receipt = receive(file)
        assert receipt.nrows == 2
        assert read(receipt.object_id) == CONTENT

    @pytest.mark.rule("FXR-24")
    def test_a_file_that_cannot_be_read_to_its_end_leaves_a_record(self, storage):
        """The error is the caller's, half an object is deleted, and the same call may be made again."""

        class Vanishing(io.BytesIO):
            def read(self, size=-1):
                if self.tell():
                    raise OSError("Stale file handle")
                return super().read(10)

        register()
        with pytest.raises(OSError, match="Stale file handle"):
            receive(Vanishing(CONTENT), unique_key="a")
        assert objects(storage) == []
        assert BatchFile.objects.get().is_accepted is None
        assert receive(unique_key="a").nrows == 2


class LimitTests:
    @pytest.mark.rule("FXR-14")
    def test_refuses_a_file_that_is_too_large_to_be_kept(self, settings, storage):
        """Its record says so, and that there is no object."""
        register(lambda file, file_name, context: pytest.fail("called"))
        settings.ALYA = {"FILE_BYTES_MAX": 10}
        receipt = receive()
        assert (receipt.accepted, receipt.object_id) == (False, "")
        assert receipt.reason == "The file is larger than 10 bytes, the limit."
        assert objects(storage) == []
        assert BatchFile.objects.get().processed_at is not None

    @pytest.mark.rule("FXR-14")
    def test_refuses_a_stored_object_that_is_too_large(self, settings, storage):
        """What is there already is kept, among the failed."""
        register(lambda file, file_name, context: pytest.fail("called"))
        settings.ALYA = {"FILE_BYTES_MAX": 10}
        (storage / "in.csv").write_bytes(CONTENT)
        receipt = receive(None, stored="in.csv")
        assert receipt.reason == "The file is larger than 10 bytes, the limit."
        assert read(receipt.object_id) == CONTENT

    @pytest.mark.rule("FXR-14")
    def test_refuses_a_file_of_too_many_lines(self, settings):
        """Faulty ones count, so that nothing goes on for ever."""
        settings.ALYA = {"BATCH_ROWS_MAX": 2}
        register()
        assert receive(b"debtor,amount\na,1\na,x\n").accepted
        assert receive(b"debtor,amount\na,x\na,1\na,1\n").reason == "The file has more than 2 lines, the limit."

    @pytest.mark.rule("FXR-15")
    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\0b.csv", "\ud800.csv", "x" * 999])
    def test_any_name_is_stored_below_the_prefix(self, storage, name):
        """A name is a text that is recorded, and no path."""
        register()
        receipt = receive(file_name=name)
        record = BatchFile.objects.get()
        assert receipt.accepted
        assert set(objects(storage)) == {receipt.object_id, receipt.error_object_id}
        assert receipt.object_id.startswith("incoming/")
        assert record.file_name == name.replace("\0", "\\0").replace("\ud800", "\\ud800")[:255]

    @pytest.mark.rule("FXR-15")
    @pytest.mark.parametrize("name", ["../outside.csv", "/etc/passwd"])
    def test_reads_nothing_outside_of_the_storage(self, storage, name):
        """The name of a stored object is one of the storage's."""
        register()
        (storage.parent / "outside.csv").write_bytes(CONTENT)
        with pytest.raises(InvalidInput) as caught:
            receive(None, stored=name)
        assert str(caught.value).startswith("stored: ")
        assert caught.value.field == "stored"

    @pytest.mark.rule("FXR-13")
    def test_reads_what_is_compressed(self, tmp_path):
        """The checker sees the content; what is kept are the bytes that came."""
        register()
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.csv", CONTENT)
        zipped, gzipped = (tmp_path / "a.zip").read_bytes(), gzip.compress(CONTENT)
        for content, name, content_type in (
            (zipped, "a.zip", "application/zip"),
            (gzipped, "a.csv.gz", "application/gzip"),
            (gzipped + b"", "data", "application/octet-stream"),
        ):
            receipt = receive(content, file_name=name, allow_duplicate=True)
            assert (receipt.nrows, receipt.nfaulty) == (2, 1)
            assert read(receipt.object_id) == content
            assert BatchFile.objects.get(pk=receipt.file_id).content_type == content_type

    @pytest.mark.rule("FXR-13")
    @pytest.mark.parametrize("size", [4, 10, 22, 100])
    def test_an_archive_that_points_before_itself_is_at_fault(self, size):
        """It is a bad file, and no failure of the storage."""
        register()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a.csv", CONTENT)
        content = b"PK\x03\x04" + packed.getvalue()[-size:]
        assert receive(content).reason.startswith("The file cannot be unpacked: ")


class RaceTests:
    def test_who_stores_later_takes_the_object_of_the_first(self, monkeypatch, storage):
        """Two calls with one key at the same time leave one object."""
        register()
        save = receive_module.objects.save

        def save_after_another(name, source):
            with monkeypatch.context() as patch:
                patch.setattr(receive_module.objects, "save", save)
                first.append(receive(unique_key="a"))
            return save(f"{name}.late", source)

        first: list[Receipt] = []
        with monkeypatch.context() as patch:
            patch.setattr(receive_module.objects, "save", save_after_another)
            second = receive(unique_key="a")
        assert first == [second]
        assert set(objects(storage)) == {second.object_id, second.error_object_id}
        assert Batch.objects.count() == 1

    def test_who_rejects_later_changes_nothing(self, monkeypatch, storage, django_capture_on_commit_callbacks):
        """A file that was decided on meanwhile stays so, and nothing more is stored of it."""
        register()
        reject = receive_module.reject

        def reject_after_another(*arguments, **options):
            first.append(reject(*arguments, **options))
            return reject(*arguments, **options)

        first: list[Receipt] = []
        monkeypatch.setattr(receive_module, "reject", reject_after_another)
        with django_capture_on_commit_callbacks(execute=True):
            second = receive(b"debtor,amount\nann,x\n")
        assert first == [second]
        assert set(objects(storage)) == {second.object_id, second.error_object_id}


class CrashTests:
    @pytest.mark.rule("FXR-3")
    def test_a_store_that_fails_leaves_no_batch(self, use_storage):
        """The error is the caller's, the record says that there was a file, and the same call goes on later."""
        register()
        use_storage(FullStorage)
        with pytest.raises(OSError, match="No space left"):
            receive(unique_key="a")
        record = BatchFile.objects.get()
        assert (record.is_accepted, record.checksum, record.size) == (None, "", 0)
        assert nothing_submitted()
        use_storage(FileSystemStorage)
        receipt = receive(unique_key="a")
        assert (receipt.file_id, receipt.accepted) == (record.pk, True)

    @pytest.mark.rule("FXR-3")
    def test_an_insert_that_fails_leaves_the_object_to_be_gone_on_with(self, monkeypatch):
        """Between the object and the batch there is a record that is undecided; its object can be offered."""
        register()

        def fail(*arguments, **keywords):
            raise RuntimeError("the process dies")

        with monkeypatch.context() as patch:
            patch.setattr("alya_django.lifecycle.store", fail)
            with pytest.raises(RuntimeError):
                receive()
        record = BatchFile.objects.get()
        assert record.is_accepted is None
        assert nothing_submitted()
        receipt = receive(None, stored=record.object_id)
        assert (receipt.file_id, receipt.accepted) == (record.pk, True)

    @pytest.mark.rule("FXR-3")
    def test_an_object_that_may_be_half_a_file_is_not_taken_for_one(self, storage):
        """A process that died while it stored leaves a record without checksum: the file must be given again."""
        register()
        (storage / "half.csv").write_bytes(CONTENT[:20])
        BatchFile.objects.create(object_id="half.csv", file_name="a", file_type="txn", content_type="text/csv")
        with pytest.raises(InvalidInput) as caught:
            receive(None, stored="half.csv")
        assert str(caught.value) == ("stored: is the name of an object that was not stored as a whole: give the file.")
        assert nothing_submitted()

    def test_a_storage_that_fails_while_it_is_read_refuses_no_file(self, use_storage):
        """Whatever the checker makes of it, the fault is not the file's."""

        def check(file, file_name, context):
            try:
                yield BatchInput(1, file.read().decode())
            except OSError:
                raise BadFile("It is broken.") from None

        register(check)
        use_storage(BrokenStorage)
        with pytest.raises(OSError, match="Input/output error"):
            receive()
        assert BatchFile.objects.get().is_accepted is None
