from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from alya_django import BadFile
from alya_django.intake.unpack import unpacked

CONTENT = b"a,b\n1,2\n" * 1000


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


def read(content: bytes) -> bytes:
    return unpacked(io.BufferedReader(io.BytesIO(content))).read()


class UnpackTests:
    @pytest.mark.rule("FXR-13")
    @pytest.mark.parametrize(
        "packed",
        [
            CONTENT,
            gzip.compress(CONTENT),
            gzip.compress(CONTENT[:100]) + gzip.compress(CONTENT[100:]),
            archive({"a.csv": CONTENT}),
            archive({"folder/": b"", "folder/a.csv": CONTENT}),
            archive({"../../etc/passwd": CONTENT}),
        ],
        ids=["plain", "gzip", "gzip in two", "zip", "zip with a folder", "zip with a way out"],
    )
    def test_reads_what_is_compressed_as_if_it_were_not(self, packed):
        """The first bytes tell, not a name; nor does the name of a member lead anywhere."""
        assert read(packed) == CONTENT

    @pytest.mark.parametrize("content", [b"", b"P", b"PK", b"\x1f"])
    def test_leaves_what_is_too_short_to_be_compressed(self, content):
        """A file may begin like an archive and be none."""
        assert read(content) == content

    def test_leaves_a_workbook_as_it_is(self):
        """An archive that is meant to be one is for the checker to open."""
        workbook = archive({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"})
        assert read(workbook) == workbook

    @pytest.mark.rule("FXR-13")
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (archive({"a.csv": b"", "b.csv": b""}), "The archive has 2 files; there must be one."),
            (archive({}) + b"", None),
            (gzip.compress(CONTENT)[:-9], "The file cannot be unpacked: Compressed file ended before the"),
            (gzip.compress(CONTENT)[:-4] + b"\0\0\0\0", "The file cannot be unpacked: Incorrect length of data"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff", "The file cannot be unpacked: Error -3"),
            (b"PK\x03\x04" + b"\0" * 50, "The file cannot be unpacked: File is not a zip file"),
            (
                archive({"a.csv": CONTENT}).replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0"),
                "The archive is compressed by method 99; only deflate is read.",
            ),
            (
                archive({"a.csv": CONTENT}).replace(b"\x14\0\0\0\x08\0", b"\x14\0\x01\0\x08\0"),
                "The file cannot be unpacked: File <ZipInfo filename='a.csv' compress_type=deflate",
            ),
        ],
        ids=[
            "two members",
            "no member",
            "cut",
            "wrong length",
            "no deflate",
            "no archive",
            "unknown method",
            "password",
        ],
    )
    def test_refuses_what_cannot_be_unpacked(self, content, reason):
        """A broken archive, or one of several files, refuses the file, wherever the fault is met."""
        if reason is None:
            # An archive without members begins otherwise: it is left as it is.
            assert read(content) == content
            return
        with pytest.raises(BadFile) as caught:
            read(content)
        assert caught.value.reason.startswith(reason)

    @pytest.mark.rule("FXR-13")
    @pytest.mark.parametrize("pack", [gzip.compress, lambda content: archive({"a": content})], ids=["gzip", "zip"])
    def test_stops_a_bomb(self, settings, pack):
        """What unpacks to more than the limit is refused as soon as it does; just the limit is fine."""
        settings.ALYA = {"UNPACKED_BYTES_MAX": 1_000_000}
        assert len(read(pack(b"0" * 1_000_000))) == 1_000_000
        with pytest.raises(BadFile) as caught:
            read(pack(b"0" * 50_000_000))
        assert caught.value.reason == "The file unpacks to more than 1000000 bytes, the limit."

    @pytest.mark.rule("FXR-13")
    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
    @pytest.mark.parametrize("name", ["a.csv", "[Content_Types].xml"], ids=["zip", "workbook"])
    def test_unpacks_what_is_stored_or_deflated_only(self, method, name):
        """Python unpacks others in one go, whatever becomes of them: some hundred bytes are gigabytes."""
        with pytest.raises(BadFile) as caught:
            read(archive({name: b"0" * 1_000_000}, method))
        assert caught.value.reason == f"The archive is compressed by method {method}; only deflate is read."

    @pytest.mark.rule("FXR-13")
    @pytest.mark.parametrize("comment", [b"", b"x" * 65_535], ids=["plain", "with a long comment"])
    def test_reads_no_long_table_of_contents(self, comment):
        """It would be in memory as a whole: an archive of one file has a short one."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as made:
            made.comment = comment
            for number in range(8_000):
                made.writestr(f"{'x' * 80}{number:04}", b"")
        with pytest.raises(BadFile) as caught:
            read(packed.getvalue())
        assert caught.value.reason == ("The archive has a table of contents of more than 1000000 bytes, the limit.")

    @pytest.mark.rule("FXR-13", "FXR-23")
    def test_refuses_whatever_a_library_trips_over(self, monkeypatch):
        """Python's own raises IndexError for a member without a name, in some versions."""
        packed = archive({"a.csv": CONTENT})
        monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda archive: [][0])
        with pytest.raises(BadFile) as caught:
            read(packed)
        assert caught.value.reason == "The file cannot be unpacked: list index out of range"
