"""Received files on a real S3 server, through django-storages."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile

import pytest

from alya_django.models import BatchFile
from tests.intake.files import CONTENT, faulty_lines, receive, register

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("registry")]


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", CONTENT)
    return packed.getvalue()


class ReceiveTests:
    @pytest.mark.rule("FXR-3", "FXR-13")
    @pytest.mark.parametrize("content", [CONTENT, gzip.compress(CONTENT), zipped()], ids=["plain", "gzip", "zip"])
    def test_keeps_and_reads_a_file(self, storage, bucket, content) -> None:
        """The object is what came, whatever is read of it; the error file lies beside the failed."""
        register()
        receipt = receive(io.BytesIO(content))
        record = BatchFile.objects.get()
        assert (receipt.accepted, receipt.nrows, receipt.nfaulty) == (True, 2, 1)
        assert (record.size, record.checksum) == (len(content), hashlib.sha256(content).hexdigest())
        assert faulty_lines(receipt) == ["3,'x' is no amount"]
        assert bucket.objects().keys() == {receipt.object_id, receipt.error_object_id}
        assert bucket.objects()[receipt.object_id] == len(content)

    @pytest.mark.rule("FXR-4")
    def test_moves_a_file_that_is_rejected(self, storage, bucket, django_capture_on_commit_callbacks) -> None:
        """An object of the sender's goes to the failed, byte by byte."""
        register()
        bucket.put("in/TXN.csv", b"nothing")
        with django_capture_on_commit_callbacks(execute=True):
            receipt = receive(None, stored="in/TXN.csv")
        assert not receipt.accepted
        assert bucket.objects() == {receipt.object_id: 7}

    @pytest.mark.rule("FXR-14")
    def test_leaves_nothing_of_a_file_that_is_too_large(self, storage, bucket, settings) -> None:
        """An upload that is given up leaves no object."""
        settings.ALYA = {"FILE_BYTES_MAX": 20_000_000}
        register()
        assert receive(io.BytesIO(b"x" * 20_000_001)).reason == "The file is larger than 20000000 bytes, the limit."
        assert bucket.objects() == {}
