"""A file that a person uploads, from when it is kept to when a worker has loaded it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.core.files.storage import FileSystemStorage, storages
from django.utils import timezone

from alya_django import (
    InvalidInput,
    Status,
    batches,
    checkers,
    register_batch_processor,
    register_file_checker,
    slow_queries,
)
from alya_django.intake import process, read_csv, uploads
from alya_django.intake.uploads import Upload
from alya_django.models import Batch, BatchFile
from alya_django.processors import Row
from alya_django.retention import prune
from alya_django.testing import drain, process_row
from tests.intake.files import CONTENT, faulty_lines, read, register
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("storage")]


@pytest.fixture(autouse=True)
def _registered(registry) -> None:
    """The loader, a checker and a processor of what it yields."""
    cache.clear()
    uploads.register()
    register()
    register_batch_processor("bank", "transfer", echo)


class LostStorage(FileSystemStorage):
    """A storage that has nothing to be read for now."""

    def open(self, *arguments, **keywords):
        raise OSError("Input/output error")


def keep(content: bytes = CONTENT, file_type: str = "txn") -> UUID:
    checker = checkers.find(file_type)
    assert checker is not None
    return uploads.keep(content, file_name="TXN 1.csv", checker=checker, uploaded_by="asha")


def find(token: UUID) -> Upload:
    upload = uploads.find(token)
    assert upload is not None
    return upload


def confirm(token: UUID) -> UUID:
    return uploads.confirm(find(token), requested_by="asha")


class KeepTests:
    @pytest.mark.rule("FXR-29")
    def test_stores_it_and_decides_nothing(self) -> None:
        """The bytes are in the storage, the record says who has brought them, and there is no batch."""
        upload = find(keep())
        assert (upload.file.is_accepted, upload.file.file_name, upload.file.size) == (None, "TXN 1.csv", len(CONTENT))
        assert read(upload.file.object_id) == CONTENT
        assert (upload.uploaded_by, upload.is_open, upload.is_loading, upload.position) == ("asha", True, False, None)
        assert not Batch.objects.exists()

    @pytest.mark.rule("FXR-32")
    def test_rejects_what_cannot_be_accepted(self) -> None:
        """Its beginning tells."""
        upload = find(keep(b"debtor,amount\n"))
        assert (upload.file.is_accepted, upload.file.error_message) == (False, "The file has no usable line.")
        assert not upload.is_open

    @pytest.mark.rule("FXR-14")
    def test_rejects_what_is_too_large(self, settings) -> None:
        """It is not kept."""
        settings.ALYA = {"FILE_BYTES_MAX": 10}
        upload = find(keep())
        assert upload.file.error_message == "The file is larger than 10 bytes, the limit."
        assert not upload.file.checksum

    def test_is_found_by_its_token_alone(self) -> None:
        """Another token finds nothing; the record knows its own."""
        token = keep()
        assert uploads.find(uuid4()) is None
        assert uploads.token_of(find(token).file) == token
        other = process(file=b"debtor,amount\nann,7\n", file_name="a.csv", file_type="txn", unique_key="up:1")
        assert uploads.token_of(BatchFile.objects.get(pk=other.file_id)) is None


class LoadTests:
    @pytest.mark.rule("FXR-34")
    def test_makes_a_batch_that_waits(self) -> None:
        """A worker receives the stored file for the person; the slow query answers what has become of it."""
        token = keep()
        query = confirm(token)
        assert find(token).is_loading
        drain()
        file = find(token).file
        assert slow_queries.result(query).result == {
            "accepted": True,
            "batch": str(file.batch_id),
            "nrows": 2,
            "nfaulty": 1,
        }
        batch = Batch.objects.get(pk=file.batch_id)
        assert (batch.status, batch.requested_by, batch.input_file) == (Status.WAIT, "asha", "TXN 1.csv")
        assert faulty_lines(file.receipt()) == ["3,'x' is no amount"]
        batches.release(batch.pk)
        drain()
        assert batches.status(batch.pk).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("FXR-34")
    def test_rejects_a_file_as_ever(self) -> None:
        """What only the whole file tells is told in its record."""
        first, second = keep(), keep()
        confirm(first)
        confirm(second)
        drain()
        assert [find(token).file.is_accepted for token in (first, second)] == [True, False]
        assert "The same content was accepted before" in find(second).file.error_message

    @pytest.mark.rule("FXR-35")
    def test_is_asked_for_once(self) -> None:
        """Whoever confirms it at the same time, or once more, gets the same slow query, and there is one batch."""
        token = keep()
        seen = find(token)
        assert len({uploads.confirm(seen, requested_by=who) for who in ("asha", "ravi")} | {confirm_again(token)}) == 1
        drain()
        assert Batch.objects.filter(app="bank").count() == 1

    @pytest.mark.rule("FXR-35")
    def test_goes_on_where_a_worker_died(self) -> None:
        """Run once more after the file was decided on, it only tells what was decided."""
        token = keep()
        query = confirm(token)
        drain()
        batch_id = find(token).file.batch_id
        answer = process_again(query)
        assert answer["batch"] == str(batch_id)
        assert Batch.objects.filter(app="bank").count() == 1

    @pytest.mark.rule("FXR-35")
    def test_begins_anew_where_a_worker_died_in_the_middle(self, registry) -> None:
        """Of what it had read nothing is left; the next one has the whole file."""
        deaths: list[BaseException] = []

        def die_once(file, file_name, context):
            for row in read_csv(file):
                yield row
                while deaths:
                    raise deaths.pop()

        register_file_checker("deadly", die_once, app="bank", op="transfer")
        token = keep(file_type="deadly")
        query = confirm(token)
        deaths.append(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            process_again(query)
        assert find(token).file.is_accepted is None
        assert not Batch.objects.filter(app="bank").exists()
        assert process_again(query)["nrows"] == 3

    @pytest.mark.rule("FXR-35")
    def test_fails_where_the_file_was_discarded_meanwhile(self) -> None:
        """Who confirms what another has just discarded gets nothing."""
        token = keep()
        seen = find(token)
        assert uploads.discard(find(token))
        query = uploads.confirm(seen, requested_by="asha")
        drain()
        assert [message.errcode for message in slow_queries.result(query).messages] == ["discarded"]

    @pytest.mark.rule("FXR-36")
    def test_can_be_asked_for_again_where_it_has_failed(self, use_storage, settings) -> None:
        """A storage that stays away fails the slow query, and the file is as it was."""
        settings.ALYA = {"MAX_ATTEMPTS": 1}
        token = keep()
        use_storage(LostStorage)
        first = confirm(token)
        drain(raise_errors=False)
        assert slow_queries.result(first).status is Status.FAILED
        assert find(token).is_open
        use_storage(FileSystemStorage)
        second = confirm(token)
        assert second != first
        assert confirm_again(token) == second
        drain()
        assert find(token).file.is_accepted

    @pytest.mark.rule("FXR-36")
    def test_is_put_off_while_the_storage_is_away(self, use_storage) -> None:
        """As many times as a row may be."""
        token = keep()
        use_storage(LostStorage)
        confirm(token)
        drain()
        load = find(token).load
        assert load is not None
        assert (load.status, load.rows.get().retries) == (Status.IN_PROGRESS, 1)

    def test_ends_at_some_time(self, monkeypatch) -> None:
        """What fails again and again is not asked for for ever."""
        monkeypatch.setattr(uploads, "LOADS_MAX", 1)
        token = keep()
        slow_queries.abort(confirm(token))
        with pytest.raises(InvalidInput) as caught:
            confirm(token)
        assert str(caught.value) == "upload: was loaded in vain 1 times; upload the file once more."

    @pytest.mark.rule("FXR-36")
    def test_stops_when_it_is_aborted(self) -> None:
        """Nothing comes of the file, which can be loaded again."""
        token = keep()
        confirm(token)
        row = Row(
            batch_id=uuid4(),
            app="alya",
            op="load",
            line=0,
            input={"file": find(token).file.pk, "requested_by": "asha"},
            context={},
            init_block=None,
            attempt=1,
            key="",
            is_aborted=lambda: True,
        )
        answer = uploads.Loader().do_slow_query(row)
        assert [message.errcode for message in answer.messages] == ["aborted"]
        assert find(token).file.is_accepted is None
        assert not Batch.objects.filter(app="bank").exists()


class PositionTests:
    @pytest.mark.rule("FXR-37")
    def test_is_noted_now_and_then(self, monkeypatch) -> None:
        """Once a second, in the cache; what else stands there is no position."""
        clock = iter([0.0, 0.5, 1.0, 1.5])
        monkeypatch.setattr(uploads, "monotonic", lambda: next(clock))
        upload = find(keep())
        note = uploads._on_read(upload.file.pk, lambda: False)
        seen = []
        for position in (10, 20, 30, 40):
            note(position)
            seen.append(upload.position)
        assert seen == [10, 10, 30, 30]
        cache.set(f"ALYA_{{{upload.file.pk}}}_LOADED", "junk")
        assert upload.position is None

    @pytest.mark.rule("FXR-37")
    def test_is_there_once_a_worker_has_read(self) -> None:
        """The bytes of the stored object."""
        token = keep()
        confirm(token)
        drain()
        assert find(token).position == len(CONTENT)


class DiscardTests:
    @pytest.mark.rule("FXR-38")
    def test_deletes_bytes_and_record(self) -> None:
        """Nothing is left of it."""
        token = keep()
        name = find(token).file.object_id
        assert uploads.discard(find(token))
        assert uploads.find(token) is None
        assert not storages["default"].exists(name)

    @pytest.mark.rule("FXR-38")
    def test_leaves_what_is_no_longer_open(self) -> None:
        """Not what is being loaded, or is decided, whatever was seen before."""
        token = keep()
        seen = find(token)
        confirm(token)
        assert not uploads.discard(find(token))
        drain()
        assert not uploads.discard(seen)
        assert find(token).file.is_accepted

    @pytest.mark.rule("PRN-7")
    def test_pruning_does_so_with_what_nobody_confirmed(self) -> None:
        """Its age is that of the upload."""
        token = keep()
        name = find(token).file.object_id
        BatchFile.objects.update(received_at=timezone.now() - timedelta(days=8))
        assert prune(timedelta(days=7)).files == 1
        assert uploads.find(token) is None
        assert not storages["default"].exists(name)


def confirm_again(token: UUID) -> UUID:
    """Return the slow query that whoever confirms once more gets: the one that is there."""
    load = find(token).load
    assert load is not None
    return load.pk


def process_again(query: UUID) -> dict:
    """Return what the loader answers when it is run once more, as after a crash."""
    row = Batch.objects.get(pk=query).rows.get()
    return process_row("alya", "load", row.input, line=0).result
