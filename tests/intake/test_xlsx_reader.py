from __future__ import annotations

import io
from typing import Any

import pytest

from alya_django import AlyaError, BadFile, BatchInput, FaultyLine, InvalidInput
from alya_django.intake import confined, read_xlsx, xlsx_reader
from tests.intake.workbooks import shared_strings, table, workbook

CORNERS = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'


def read(content: bytes, **options: Any) -> list[Any]:
    return list(read_xlsx(io.BytesIO(content), **options))


def refused(content: bytes, **options: Any) -> str:
    """Return why a workbook is refused."""
    with pytest.raises(BadFile) as caught:
        read(content, **options)
    return caught.value.reason


class RowTests:
    @pytest.mark.rule("FXR-21")
    def test_yields_texts_by_column_with_their_row(self):
        """A row has its number in the sheet; empty rows are passed over, and all values are texts."""
        rows = table(
            (None, None),
            ("name", "amount", "paid"),
            (None,),
            ("ann", 12.5, True),
            ("bob", 3, False),
            ("cid", None),
        )
        assert read(workbook(rows)) == [
            BatchInput(4, {"name": "ann", "amount": "12.5", "paid": "true"}),
            BatchInput(5, {"name": "bob", "amount": "3", "paid": "false"}),
            BatchInput(6, {"name": "cid", "amount": "", "paid": ""}),
        ]

    @pytest.mark.rule("FXR-21")
    def test_maps_columns_as_for_csv(self):
        """By the header or, without one, by their order."""
        content = workbook(table(("Name", "Amount"), ("ann", 1)))
        assert read(content, columns={"Amount": "amount"}) == [BatchInput(2, {"amount": "1"})]
        assert read(content, columns=["a", "b"], has_header=False) == [
            BatchInput(1, {"a": "Name", "b": "Amount"}),
            BatchInput(2, {"a": "ann", "b": "1"}),
        ]
        with pytest.raises(InvalidInput, match="must be a list of names"):
            read(content, has_header=False)

    @pytest.mark.rule("FXR-21")
    def test_names_rows_that_are_too_wide(self):
        """A value beyond the header belongs to no column."""
        assert read(workbook(table(("name",), ("ann", 1), ("bob", None)))) == [
            FaultyLine(2, "has 2 values, not 1"),
            BatchInput(3, {"name": "bob"}),
        ]

    def test_takes_the_sheet_that_is_named(self):
        """Its name, as it stands on the tab."""
        content = workbook(table(("name",), ("ann",)))
        assert len(read(content, sheet="Payments")) == 1
        assert refused(content, sheet="Fees") == "The workbook has no sheet 'Fees'."

    def test_cells_without_a_place_follow_each_other(self):
        """Excel writes where a cell is, others need not."""
        rows = "<row><c t='str'><v>name</v></c></row><row><c><v>1</v></c></row>"
        assert read(workbook(rows)) == [BatchInput(2, {"name": "1"})]

    def test_says_what_to_install(self, monkeypatch):
        """Without python-calamine the error is the project's, not the file's."""
        monkeypatch.setattr(xlsx_reader, "find_spec", lambda name: None)
        with pytest.raises(AlyaError) as caught:
            read(b"")
        assert str(caught.value) == 'read_xlsx needs python-calamine: pip install "alya-django[xlsx]"'


class HostileTests:
    @pytest.mark.rule("FXR-22")
    @pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/media/image1.png"])
    def test_refuses_cells_in_opposite_corners(self, part):
        """They would need a rectangle of 17 thousand million cells, wherever the sheet is hidden."""
        assert refused(workbook(CORNERS, sheet_part=part)) == (
            "The workbook has a sheet of more than 5000000 cells, the limit."
        )

    @pytest.mark.rule("FXR-22")
    @pytest.mark.parametrize("head", ["\n<!-- -->junk", "<a/>", "\xff"])
    def test_a_part_that_is_half_xml_is_not_read(self, head):
        """What the one parser gives up on the other does not get."""
        assert refused(workbook(CORNERS, head=head)).startswith("The file is no workbook that can be read: ")

    @pytest.mark.rule("FXR-22")
    def test_passes_over_a_million_empty_rows(self):
        """They take time, but no room: there is nothing in them."""
        rows = "".join(f'<row r="{number}"><c r="A{number}" s="1"/></row>' for number in range(1, 1_000_001))
        assert refused(workbook(rows)) == "The file is empty."

    @pytest.mark.rule("FXR-22")
    def test_refuses_too_many_cells_and_bytes(self, settings):
        """Just the limit is fine."""
        content = workbook(table(("a", "b"), (1, 2)))
        settings.ALYA = {"XLSX_CELLS_MAX": 4}
        assert len(read(content)) == 1
        settings.ALYA = {"XLSX_CELLS_MAX": 3}
        assert refused(content) == "The workbook has a sheet of more than 3 cells, the limit."
        settings.ALYA = {"XLSX_BYTES_MAX": len(content) - 1}
        assert refused(content) == f"The workbook unpacks to more than {len(content) - 1} bytes, the limit."
        settings.ALYA = {"XLSX_BYTES_MAX": 100_000}
        bomb = workbook(table(("a",)), parts={"xl/bomb.xml": b" " * 10_000_000})
        assert refused(bomb) == "The workbook unpacks to more than 100000 bytes, the limit."

    @pytest.mark.rule("FXR-22")
    def test_refuses_entities(self):
        """No workbook declares a document type, so a thousand million laughs are none."""
        head = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
        assert refused(workbook(table(("a",)), head=head)) == "The workbook has a document type, which none has."

    @pytest.mark.rule("FXR-22")
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"name,amount\n",
            b"PK\x03\x04" + b"\0" * 100,
            workbook(table(("a",)))[:-30],
            workbook('<row r="x"><c r="A1"><v>1</v></c></row>'),
            workbook('<row r="1"><c r="A"><v>1</v></c></row>'),
            workbook('<row r="1"><c r="A1" t="s"><v>99</v></c></row>'),
        ],
        ids=["empty", "csv", "zeros", "cut", "row", "reference", "string"],
    )
    def test_refuses_what_is_no_workbook(self, content):
        """Whatever is broken, the file is at fault and is told so."""
        assert refused(content).startswith(("The file is no workbook that can be read: ", "The file is empty."))

    @pytest.mark.rule("FXR-22")
    def test_bounds_what_cells_share(self, settings):
        """A text that a hundred cells share is a hundred texts; just the limit is fine, in any order of parts."""
        rows = "".join(f'<row r="{row}"><c r="A{row}" t="s"><v>1</v></c></row>' for row in range(1, 101))
        content = workbook(rows, parts={"xl/SharedStrings.xml": shared_strings("", "x" * 1_000)})
        settings.ALYA = {"XLSX_BYTES_MAX": 100_000}
        assert len(read(content)) == 99
        settings.ALYA = {"XLSX_BYTES_MAX": 99_999}
        assert refused(content) == "The workbook has a sheet whose cells repeat more than 99999 bytes, the limit."

    @pytest.mark.rule("FXR-22")
    def test_bounds_a_row(self, settings):
        """As a record of a CSV file: whoever reads it has a row in memory."""
        settings.ALYA = {"RECORD_CHARS_MAX": 10}
        assert read(workbook(table(("a", "b"), ("x" * 9, "y")))) == [BatchInput(2, {"a": "x" * 9, "b": "y"})]
        assert refused(workbook(table(("a", "b"), ("x" * 9, "yz")))) == (
            "Row 2: longer than 10 characters, the limit."
        )

    @pytest.mark.rule("FXR-44")
    def test_rejects_what_needs_too_much_memory(self, settings):
        """A limit of the system ends the process that reads the workbook, and nobody else's."""
        settings.ALYA = {"XLSX_MEMORY_BYTES_MAX": 100_000_000}
        content = workbook("", parts={"xl/large.xml": b" " * 80_000_000})
        assert refused(content) == "The workbook needs more than 100000000 bytes of memory, the limit."

    @pytest.mark.rule("FXR-44")
    def test_rejects_what_takes_too_long(self, settings):
        """The processor's time is limited, and the time that it is waited for."""
        settings.ALYA = {"XLSX_SECONDS_MAX": 1}
        rows = "<row/>" * 20_000_000
        assert refused(workbook(rows)) == "The workbook takes longer than 1 seconds to be read, the limit."

    @pytest.mark.rule("FXR-44")
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (confined.TooSlow(), "The workbook takes longer than 120 seconds to be read, the limit."),
            (confined.Died("SIGXCPU"), "The workbook takes longer than 120 seconds to be read, the limit."),
            (confined.Died("SIGSEGV"), "The workbook ended the process that read it (SIGSEGV): it breaks its reader"),
            (confined.Died("SIGKILL"), "The workbook ended the process that read it (SIGKILL): it breaks its reader"),
        ],
    )
    def test_rejects_what_ends_its_process(self, monkeypatch, error, reason):
        """In whatever way."""

        def lines(*arguments, **options):
            yield b'["a"]'
            raise error

        monkeypatch.setattr(confined, "lines", lines)
        assert refused(workbook("")).startswith(reason)
