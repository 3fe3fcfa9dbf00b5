"""Output files on a real S3 server, through django-storages."""

from __future__ import annotations

import tracemalloc
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from django.core.files.base import ContentFile
from django.http import FileResponse

from alya_django import (
    NotFound,
    QueryResult,
    batches,
    outputs,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.models import Batch
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import write_lines
from tests.test_outputs import LOGICAL_NAMES

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("registry")]

OPTIONS = {
    "plain": {},
    "deep location": {"location": "a/b c/ü"},
    "never overwriting": {"file_overwrite": False},
    "compressing": {"gzip": True, "gzip_content_types": ("text/csv", "application/octet-stream")},
    "in threads": {"transfer_config": None},
    "spooled": {"max_memory_size": 1_000_000},
}


def read(name: str) -> bytes:
    with outputs.open(name) as file:
        return file.read()


class SaveTests:
    @pytest.mark.rule("OUT-4", "OUT-5")
    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_any_name_is_stored_listed_and_read_back(self, use_storage, options) -> None:
        """Whatever the logical name and the storage's options, the object has the name that Alya gave it."""
        use_storage(**options)
        batch_id, attempt = uuid4(), uuid4()
        names = {}
        for logical_name in LOGICAL_NAMES:
            names[logical_name] = outputs.save(batch_id, attempt, logical_name, ContentFile(logical_name.encode()))
            assert names[logical_name] == outputs.object_name(batch_id, attempt, logical_name)
        assert {name: read(stored) for name, stored in names.items()} == {name: name.encode() for name in names}
        folders, files = outputs.storage().listdir(f"alya/{batch_id}/{attempt.hex}")
        assert folders == []
        assert sorted(files) == sorted(name.rpartition("/")[2] for name in names.values())

    @pytest.mark.rule("OUT-5")
    def test_lies_below_the_location(self, storage, bucket) -> None:
        """The storage's location comes before the prefix, and is no part of the object's name."""
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"x"))
        assert bucket.objects() == {name: 1}
        assert bucket.head(name)["ContentType"] == "text/csv"

    def test_keeps_the_name_that_is_free(self, use_storage, bucket) -> None:
        """A storage that overwrites nothing changes a name that is taken, and what it says is kept."""
        use_storage(file_overwrite=False)
        batch_id, attempt = uuid4(), uuid4()
        first, second = (outputs.save(batch_id, attempt, "a.csv", ContentFile(text)) for text in (b"1", b"2"))
        assert first != second
        assert (read(first), read(second)) == (b"1", b"2")
        assert set(bucket.objects()) == {first, second}


class DeleteTests:
    def test_bears_what_is_not_there(self, storage, caplog) -> None:
        """An object that is gone, or a folder that never was, is no fault."""
        outputs.delete(["alya/nothing", f"alya/{uuid4()}/a%2Fb"])
        outputs.delete_attempt(uuid4(), uuid4())
        outputs.delete_other_attempts(uuid4(), uuid4())
        assert caplog.messages == []

    @pytest.mark.rule("FIN-3")
    def test_leaves_only_the_attempt_that_won(self, storage, bucket) -> None:
        """Attempts are folders that S3 does not know: their objects go, and no other."""
        batch_id, attempt = uuid4(), uuid4()
        mine = [outputs.save(batch_id, attempt, name, ContentFile(b"x")) for name in LOGICAL_NAMES]
        others = outputs.save(uuid4(), uuid4(), "a", ContentFile(b"x"))
        for _ in range(2):
            other = uuid4()
            for name in LOGICAL_NAMES:
                outputs.save(batch_id, other, name, ContentFile(b"x"))
        outputs.delete_other_attempts(batch_id, attempt)
        assert set(bucket.objects()) == {*mine, others}
        outputs.delete_attempt(batch_id, attempt)
        assert set(bucket.objects()) == {others}


class OpenTests:
    @pytest.mark.rule("OUT-6")
    def test_reads_a_large_object_in_pieces(self, storage) -> None:
        """Neither opening nor reading holds more than a piece of the object."""
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"0123456789abcde\n" * 1_250_000))
        tracemalloc.start()
        try:
            with outputs.open(name) as file:
                first = next(iter(file))
                file.seek(0)
                size = sum(map(len, file.chunks()))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (first, size) == (b"0123456789abcde\n", 20_000_000)
        assert peak < 4_000_000

    def test_reads_lines_pieces_and_from_anywhere(self, storage) -> None:
        """The file does what a local one does."""
        content = b"".join(b"line %d\n" % number for number in range(100_000))
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(content))
        with outputs.open(name) as file:
            assert (file.name, file.size, file.closed) == (name, len(content), False)
            assert file.readline() == b"line 0\n"
            assert file.read(7) == b"line 1\n"
            assert file.tell() == 14
            assert list(file) == content.splitlines(keepends=True)
            assert file.read() == b""
            file.seek(-6, 2)
            assert file.read() == b"99999\n"
            file.seek(7)
            assert file.read() == content[7:]
            file.seek(len(content) + 10)
            assert file.read(1) == b""
            with pytest.raises(ValueError, match="negative seek"):
                file.seek(-1)
        assert file.closed

    def test_reads_an_empty_object(self, storage) -> None:
        """Of nothing there is nothing to ask for."""
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b""))
        with outputs.open(name) as file:
            assert (file.size, file.read(), list(file)) == (0, b"", [])

    def test_can_be_sent_to_a_browser(self, storage) -> None:
        """Django's FileResponse streams it and knows its length."""
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"a,b\n" * 100_000))
        response = FileResponse(outputs.open(name), as_attachment=True, filename="a.csv")
        assert response["Content-Length"] == "400000"
        assert b"".join(response.streaming_content) == b"a,b\n" * 100_000
        response.close()

    def test_of_an_object_that_is_gone(self, storage) -> None:
        """Opening says so, as of a local file."""
        with pytest.raises(FileNotFoundError):
            outputs.open("alya/nothing")

    def test_never_mixes_two_objects(self, storage, bucket) -> None:
        """An object replaced while it is read is an error, not the end of another file."""
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"old\n" * 200_000))
        with outputs.open(name) as file:
            assert file.readline() == b"old\n"
            bucket.put(name, b"new\n" * 200_000)
            file.seek(400_000)
            with pytest.raises(ClientError, match="PreconditionFailed"):
                file.read()

    @pytest.mark.parametrize("logical_name", ["a.csv", "a.csv.gz", "a.txt"])
    def test_gives_back_what_was_saved_whatever_the_storage_compresses(
        self, use_storage, bucket, logical_name
    ) -> None:
        """What the storage compressed is decompressed; a name that only looks compressed is left alone."""
        use_storage(**OPTIONS["compressing"])
        name = outputs.save(uuid4(), uuid4(), logical_name, ContentFile(b"line\n" * 50_000))
        assert bucket.head(name).get("ContentEncoding") == (None if logical_name == "a.txt" else "gzip")
        assert (bucket.objects()[name] < 10_000) == (logical_name == "a.csv")
        with outputs.open(name) as file:
            assert file.read() == b"line\n" * 50_000
            file.seek(0)
            assert file.readline() == b"line\n"


class OutputFileTests:
    @pytest.mark.rule("FIN-3", "OUT-1", "OUT-5")
    def test_of_a_batch_is_in_the_bucket(self, storage, bucket) -> None:
        """A batch's files are the objects that its summary names, and nothing else lies there."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": f"{n}", "ü/b.csv": f"{n % 3}"} for n in range(300)])
        left = outputs.save(batch_id, uuid4(), "a.csv", ContentFile(b"half"))
        Batch.objects.filter(pk=batch_id).update(finisher=uuid4(), finisher_until="2000-01-01T00:00Z")
        drain()
        files = batches.status(batch_id).output_files
        assert set(files) == {"a.csv", "ü/b.csv"}
        assert set(bucket.objects()) == set(files.values())
        assert left not in bucket.objects()
        with batches.open_output(batch_id, "a.csv") as file:
            assert [int(line) for line in file] == list(range(300))
        with pytest.raises(NotFound):
            batches.open_output(batch_id, "c.csv")
        check_invariants()

    @pytest.mark.rule("SQD-2")
    def test_of_a_slow_query_is_in_the_bucket(self, storage, bucket) -> None:
        """Files given by the processor, and objects that it names, are opened alike."""
        bucket.put("reports/earlier.csv", b"earlier")
        files = {"new.csv": ContentFile(b"new"), "old.csv": "reports/earlier.csv"}
        register_slow_query_processor("bank", "report", lambda row: QueryResult.success(output_files=files))
        query_id = slow_queries.submit("bank", "report", {})
        drain()
        contents = {}
        for name in slow_queries.result(query_id).output_files:
            with slow_queries.open_output(query_id, name) as file:
                contents[name] = file.read()
        assert contents == {"new.csv": b"new", "old.csv": b"earlier"}
        check_invariants()


class SignedLinkTests:
    @pytest.mark.rule("ADM-5")
    def test_gives_the_object_as_an_attachment(self, storage) -> None:
        """Whoever has the link gets the object, to be kept under its name and not to be opened."""
        name = outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"x"))
        link = outputs.signed_link(name, disposition='attachment; filename="a.csv"', seconds=60)
        with urlopen(link) as answer:
            assert answer.read() == b"x"
            assert answer.headers["Content-Disposition"] == 'attachment; filename="a.csv"'
            assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "X-Amz-Expires=60" in link

    @pytest.mark.rule("ADM-5")
    def test_a_changed_link_gives_nothing(self, storage) -> None:
        """The signature is of this object alone."""
        name, other = (outputs.save(uuid4(), uuid4(), "a.csv", ContentFile(b"x")) for _ in range(2))
        link = outputs.signed_link(name, disposition="attachment", seconds=60)
        with pytest.raises(HTTPError, match="403"):
            urlopen(link.replace(name, other))

    @pytest.mark.parametrize(
        "options", [{"querystring_auth": False}, {"custom_domain": "files.example"}], ids=["unsigned", "a domain"]
    )
    def test_none_where_the_storage_signs_none(self, use_storage, options) -> None:
        """An address that is not signed is for everybody or for nobody: the file is streamed."""
        use_storage(**options)
        assert outputs.signed_link("a.csv", disposition="attachment", seconds=60) is None

    def test_none_of_a_storage_that_is_not_on_s3(self) -> None:
        """A local directory has no links."""
        assert outputs.signed_link("a.csv", disposition="attachment", seconds=60) is None
