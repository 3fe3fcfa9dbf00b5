"""What is seen of a file before it is loaded: little of it, whatever it is."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator

import pytest
from django.core.files.storage import storages

from alya_django import BadFile, BatchInput, ControlTotals, FaultyLine, checkers
from alya_django.intake import preview as preview_module
from alya_django.intake import read_csv, read_xlsx, receive
from alya_django.intake.preview import Preview, look, reject_unreadable
from alya_django.models import Batch, BatchFile, BatchRow
from tests.intake.files import CONTENT, read, register
from tests.intake.workbooks import workbook

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

BIG = 12345678901234567890123


def keep(content: bytes, file_name: str = "TXN 1.csv") -> BatchFile:
    return receive.keep(content, file_name=file_name, file_type="txn")


def preview_of(content: bytes = CONTENT) -> Preview:
    checker = checkers.find("txn")
    assert checker is not None
    return look(keep(content), checker)


def table(nlines: int) -> bytes:
    return b"debtor,amount\n" + b"".join(b"ann,%d\n" % number for number in range(nlines))


def count_objects() -> int:
    return len(storages["default"].listdir("incoming")[0])


class LookTests:
    @pytest.mark.rule("FXR-30")
    def test_shows_rows_and_faults(self) -> None:
        """What the checker makes of the file, each with its line; nothing is stored of it."""
        register()
        found = preview_of()
        assert found.rows == [
            (2, {"debtor": "ann", "amount": "1.00"}),
            (4, {"debtor": "cid", "amount": "3.00"}),
        ]
        assert found.faults == [FaultyLine(3, "'x' is no amount")]
        assert (found.nrows, found.nfaulty, found.stopped_by, found.reason) == (2, 1, "", "")
        assert not Batch.objects.exists()
        assert not BatchRow.objects.exists()

    @pytest.mark.rule("FXR-30")
    def test_shows_the_first_of_many(self) -> None:
        """Twenty rows and twenty faults, and how many there are in what was looked at."""
        register()
        found = preview_of(b"debtor,amount\n" + b"ann,1\nbob,x\n" * 50)
        assert [line for line, _ in found.rows] == list(range(2, 42, 2))
        assert [fault.line for fault in found.faults] == list(range(3, 43, 2))
        assert (found.nrows, found.nfaulty) == (50, 50)

    def test_keeps_every_digit(self) -> None:
        """An input is what would be stored of it; one that JSON cannot hold is a fault."""
        register(lambda file, file_name, context: iter([BatchInput(1, {"n": BIG}), BatchInput(2, {"n": 0.5j})]))
        found = preview_of()
        assert found.rows == [(1, {"n": BIG})]
        assert found.faults == [FaultyLine(2, "input.n: a value of type complex cannot be stored as JSON.")]

    def test_gives_the_checker_an_empty_context(self) -> None:
        """And whatever it leaves there is gone."""
        seen = []

        def check(file, file_name, context) -> Iterator[BatchInput]:
            seen.append((file_name, dict(context)))
            context["sender"] = "ann"
            yield BatchInput(1, {})

        register(check)
        preview_of()
        preview_of()
        assert seen == [("TXN 1.csv", {})] * 2


class EnoughTests:
    """Where it stops."""

    @pytest.mark.rule("FXR-31")
    def test_after_a_thousand_lines(self) -> None:
        """Rows and faulty lines alike; a file of exactly a thousand was looked at to its end."""
        register()
        found = preview_of(b"debtor,amount\n" + b"ann,1\nbob,x\n" * 501)
        assert (found.nrows, found.nfaulty, found.stopped_by) == (500, 500, "lines")
        assert preview_of(table(1_000)).stopped_by == ""

    @pytest.mark.rule("FXR-31")
    def test_after_a_thousand_faulty_lines(self) -> None:
        """Also where not one of them is a row."""
        register()
        found = preview_of(b"debtor,amount\n" + b"bob,x\n" * 1_001)
        assert (found.nrows, found.nfaulty, found.stopped_by, found.reason) == (0, 1_000, "lines", "")

    @pytest.mark.rule("FXR-31")
    @pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
    def test_after_so_many_bytes(self, pack, monkeypatch) -> None:
        """A checker that wants the whole file gets no more, packed or not."""
        monkeypatch.setattr(preview_module, "BYTES_MAX", 300_000)
        got = []

        def check(file, file_name, context) -> Iterator[BatchInput]:
            yield BatchInput(1, {})
            while data := file.read(10_000):
                got.append(len(data))

        register(check)
        found = preview_of(pack(b"x" * 2_000_000))
        assert (found.nrows, found.stopped_by, found.reason) == (1, "bytes", "")
        assert sum(got) <= 300_000

    @pytest.mark.rule("FXR-31")
    def test_before_a_bomb_is_unpacked(self, monkeypatch) -> None:
        """What a member of an archive, or of a workbook, says to unpack to counts before it is."""
        monkeypatch.setattr(preview_module, "BYTES_MAX", 1_000_000)
        register(lambda file, file_name, context: read_xlsx(file))
        found = preview_of(workbook("", parts={"xl/bomb.xml": b" " * 2_000_000}))
        assert (found.nrows, found.stopped_by, found.reason) == (0, "bytes", "")

    @pytest.mark.rule("FXR-31")
    def test_asks_the_storage_for_little(self, monkeypatch) -> None:
        """Of an archive whose table of contents is huge, too."""
        monkeypatch.setattr(preview_module, "BYTES_MAX", 1_000_000)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for number in range(10_000):
                archive.writestr(f"{'x' * 40}{number}", b"")
        register()
        assert preview_of(packed.getvalue()).stopped_by == "bytes"

    @pytest.mark.rule("FXR-31")
    def test_after_some_seconds(self, monkeypatch) -> None:
        """A checker that takes its time is not waited for."""
        clock = iter([0.0, *[1.0] * 20, *[3.0] * 1_000])
        monkeypatch.setattr(preview_module, "monotonic", lambda: next(clock))
        register()
        found = preview_of(table(100))
        assert (found.stopped_by, found.reason) == ("seconds", "")
        assert 0 < found.nrows < 100

    @pytest.mark.rule("FXR-31")
    @pytest.mark.parametrize(
        "content",
        [b"\n" * 1_000_000, b"," * 1_000_000, b"a,b\n" + b"," * 1_000_000, b"a\n" + b'"' + b"x" * 1_000_000],
        ids=["blank lines", "a wide header", "a wide line", "a long value"],
    )
    def test_looks_at_the_clock_where_no_line_comes(self, content, monkeypatch, settings) -> None:
        """What is read and yields nothing takes time, too."""
        settings.ALYA = {"RECORD_CHARS_MAX": 10_000_000}
        clock = iter([0.0, *[3.0] * 100])
        monkeypatch.setattr(preview_module, "monotonic", lambda: next(clock))
        register()
        found = preview_of(gzip.compress(content))
        assert (found.nrows, found.stopped_by) == (0, "seconds")

    @pytest.mark.rule("FXR-31")
    def test_shows_the_beginning_of_long_texts(self) -> None:
        """A reason that quotes a value of a million characters is none to read."""

        def check(file, file_name, context) -> Iterator[FaultyLine]:
            yield FaultyLine(1, "x" * 1_000_000)
            raise BadFile("y" * 1_000_000)

        register(check)
        found = preview_of()
        assert (len(found.faults[0].reason), len(found.reason)) == (10_000, 10_000)

    def test_cannot_be_talked_out_of_it(self, monkeypatch) -> None:
        """A checker that goes on whatever is raised is stopped all the same."""
        monkeypatch.setattr(preview_module, "BYTES_MAX", 1_000)

        def check(file, file_name, context) -> Iterator[BatchInput]:
            try:
                file.read()
            except Exception:
                yield BatchInput(1, {})

        register(check)
        found = preview_of(b"x" * 2_000)
        assert (found.nrows, found.stopped_by) == (0, "bytes")


class ReasonTests:
    """What speaks against a file."""

    @pytest.mark.rule("FXR-32")
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"debtor,amount\n", "The file has no usable line."),
            (b"debtor,amount\nann,x\n", "The file has no usable line."),
            (b"", "The file is empty."),
            (
                b"\x1f\x8bgarbage",
                "The file cannot be unpacked: Compressed file ended before the end-of-stream marker was reached",
            ),
            (b'debtor,amount\nann,"1\nbob,2\n', "Line 2: a value in quotes does not end: unexpected end of data."),
        ],
    )
    def test_is_said_in_the_words_of_who_found_it(self, content, reason) -> None:
        """The reader's, the checker's or Alya's."""
        register()
        assert preview_of(content).reason == reason

    @pytest.mark.rule("FXR-32")
    def test_rejects_the_file(self, storage, django_capture_on_commit_callbacks) -> None:
        """Its record has the reason, its bytes and its faulty lines lie where the rejected ones do."""

        def check(file, file_name, context) -> Iterator[BatchInput | FaultyLine]:
            yield FaultyLine(2, "is bad")
            raise BadFile("The bank is unknown.")

        register(check)
        record, checker = keep(CONTENT), checkers.find("txn")
        with django_capture_on_commit_callbacks(execute=True):
            reject_unreadable(record, checker)
        record.refresh_from_db()
        assert (record.is_accepted, record.error_message, record.nfaulty) == (False, "The bank is unknown.", 1)
        assert read(record.object_id) == CONTENT
        assert record.object_id.startswith("failed/")
        assert read(record.error_object_id).decode() == "line,reason\n2,is bad\n"

    @pytest.mark.rule("FXR-32")
    def test_leaves_a_file_that_may_be_good(self) -> None:
        """Faulty lines, and a beginning that tells nothing, are no reason to reject it."""
        register()
        record = keep(CONTENT)
        reject_unreadable(record, checkers.find("txn"))
        record.refresh_from_db()
        assert record.is_accepted is None

    def test_is_that_the_object_is_gone(self, storage) -> None:
        """A storage that has lost it is no error of the page."""
        register()
        record = keep(CONTENT)
        storages["default"].delete(record.object_id)
        assert look(record, checkers.find("txn")).reason == "The storage has no such object."


class TotalsTests:
    @pytest.mark.rule("FXR-33")
    def test_are_told_where_they_were_seen(self) -> None:
        """And where a file that was looked at to its end does not keep them."""

        def check(file, file_name, context) -> Iterator[BatchInput | ControlTotals]:
            yield ControlTotals(count=3, sums={"amount": "4.00"})
            yield from read_csv(file)

        register(check, totals="amount")
        found = preview_of(b"amount\n1.00\n3.00\n")
        assert found.declared == {"count": 3, "sums": {"amount": "4.00"}}
        assert found.mismatch == ["3 rows declared, 2 found"]

    @pytest.mark.rule("FXR-33")
    def test_are_not_compared_with_a_part(self) -> None:
        """The rows of the rest are not known."""

        def check(file, file_name, context) -> Iterator[BatchInput | ControlTotals]:
            yield ControlTotals(count=2_000)
            yield from read_csv(file)

        register(check)
        found = preview_of(table(2_000))
        assert (found.stopped_by, found.mismatch) == ("lines", [])
