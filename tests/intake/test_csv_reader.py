from __future__ import annotations

import csv
import gzip
import io
import re
from typing import Any

import pytest

from alya_django import BadFile, BatchInput, FaultyLine, InvalidInput
from alya_django.intake import read_csv

TEXT = "name,amount\nann,1\nbøb,2\n"
INPUTS = [{"name": "ann", "amount": "1"}, {"name": "bøb", "amount": "2"}]


def read(content: bytes | str, **options: Any) -> list[Any]:
    return list(read_csv(io.BytesIO(content.encode() if isinstance(content, str) else content), **options))


def refused(content: bytes | str, **options: Any) -> str:
    """Return why a file is refused as a whole."""
    with pytest.raises(BadFile) as caught:
        read(content, **options)
    return caught.value.reason


class RowTests:
    @pytest.mark.rule("FXR-11")
    def test_yields_texts_by_column_with_their_line(self):
        """A row has the line it begins at in the file: blank lines count, and so do those inside quotes."""
        assert read('\nname,text\n\nann,"one\ntwo"\r\nbob,\rcid,"say ""no"""') == [
            BatchInput(4, {"name": "ann", "text": "one\ntwo"}),
            BatchInput(6, {"name": "bob", "text": ""}),
            BatchInput(7, {"name": "cid", "text": 'say "no"'}),
        ]

    @pytest.mark.rule("FXR-11")
    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
    )
    def test_reads_every_encoding(self, encoding):
        """A byte order mark tells; without one, the argument does."""
        assert [row.input for row in read(TEXT.encode(encoding), encoding=encoding)] == INPUTS

    @pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
    def test_a_mark_is_stronger_than_the_argument(self, mark):
        """What the file says of itself is true."""
        assert [row.input for row in read(TEXT.encode(mark), encoding="latin-1")] == INPUTS

    def test_takes_the_dialect_of_csv(self):
        """Delimiters and quotes are those that are asked for."""
        assert read("name;amount\n'a;b';2\n", delimiter=";", quotechar="'") == [
            BatchInput(2, {"name": "a;b", "amount": "2"})
        ]
        assert read("name\tamount\na\t2\n", dialect=csv.excel_tab) == [BatchInput(2, {"name": "a", "amount": "2"})]

    def test_leaves_the_file_open(self):
        """The file is the caller's, who may read on or begin anew."""
        file = io.BytesIO(TEXT.encode())
        list(read_csv(file))
        buffered = io.BufferedReader(io.BytesIO(TEXT.encode()))
        next(read_csv(buffered))
        assert not file.closed
        assert not buffered.closed

    def test_reads_a_stream_that_cannot_be_rewound(self):
        """What is unpacked while it is read is no less a file."""
        file = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(TEXT.encode())))
        assert [row.input for row in read_csv(file)] == INPUTS


class ColumnTests:
    def test_maps_the_header(self):
        """Columns come under the names they are wanted by, and those not wanted are left out."""
        content = " Name , Amount (EUR),Note\nann,1,x\n"
        assert read(content, columns={"Amount (EUR)": "amount", "Name": "name"}) == [
            BatchInput(2, {"amount": "1", "name": "ann"})
        ]
        assert read(content, columns=["Note"]) == [BatchInput(2, {"Note": "x"})]
        assert read(content, columns={"Name": "a", "Amount (EUR)": "b", "Note": "c"}) == [
            BatchInput(2, {"a": "ann", "b": "1", "c": "x"})
        ]

    def test_names_the_columns_of_a_file_without_header(self):
        """Line 1 is a row."""
        assert read("ann,1\nbob,2\n", columns=["name", "amount"], has_header=False) == [
            BatchInput(1, {"name": "ann", "amount": "1"}),
            BatchInput(2, {"name": "bob", "amount": "2"}),
        ]
        assert read("", columns=["name"], has_header=False) == []

    @pytest.mark.rule("FXR-11")
    def test_names_the_columns_of_several_kinds_of_records(self):
        """What a record begins with says which columns it has, and each kind may have as many as it needs."""
        kinds = {"H": ["kind", "sender"], "P": ["kind", "name", "amount"], "T": ["kind", "count"]}
        assert read("H,acme\nP,ann,1\nP,bob\nX,1\n\xff\nT,1\n", columns=kinds, has_header=False) == [
            BatchInput(1, {"kind": "H", "sender": "acme"}),
            BatchInput(2, {"kind": "P", "name": "ann", "amount": "1"}),
            FaultyLine(3, "has 2 values, not 3"),
            FaultyLine(4, "'X' is none of 'H', 'P', 'T', with which records begin"),
            FaultyLine(5, "'\xff' is none of 'H', 'P', 'T', with which records begin"),
            BatchInput(6, {"kind": "T", "count": "1"}),
        ]
        assert read(b"T,\xff\nT,2\n", columns=kinds, has_header=False) == [
            FaultyLine(1, "has bytes that are no utf-8"),
            BatchInput(2, {"kind": "T", "count": "2"}),
        ]

    @pytest.mark.parametrize("columns", [None, "name", {}, {"name": "name"}])
    def test_without_header_there_must_be_names(self, columns):
        """A mapping is of no use where there is no header."""
        with pytest.raises(InvalidInput) as caught:
            read(TEXT, columns=columns, has_header=False)
        assert str(caught.value) == "columns: must be a list of names where the file has no header."

    def test_with_a_header_there_are_no_kinds(self):
        """The header says what all records have."""
        with pytest.raises(InvalidInput) as caught:
            read(TEXT, columns={"name": ["name", "amount"]})
        assert str(caught.value) == "columns: must map each name to one where the file has a header."

    @pytest.mark.rule("FXR-39")
    @pytest.mark.parametrize("columns", [None, [f"c{number}" for number in range(200_000)]], ids=["all", "named"])
    def test_reads_a_wide_header_in_one_pass(self, settings, columns):
        """Each name is looked up once: among as many, looking through all for each would take hours."""
        settings.ALYA = {"COLUMNS_MAX": 200_000, "RECORD_CHARS_MAX": 2_000_000}
        names = [f"c{number}" for number in range(200_000)]
        (row,) = read(f"{','.join(reversed(names))}\n{',' * 199_999}\n", columns=columns)
        assert row.input == dict.fromkeys(names, "")

    @pytest.mark.rule("FXR-39")
    def test_refuses_a_header_that_is_too_wide(self, settings):
        """Just the limit is fine."""
        settings.ALYA = {"COLUMNS_MAX": 2}
        assert len(read("a,b\n1,2\n")) == 1
        assert refused("a,b,c\n1,2,3\n") == "The header has 3 columns, the limit is 2."

    @pytest.mark.rule("FXR-40")
    @pytest.mark.parametrize(
        ("columns", "has_header", "fault"),
        [
            ({"a": "x", "b": "x"}, True, "has 'x' twice."),
            (["a", "a"], True, "has 'a' twice."),
            (["a", "a"], False, "has 'a' twice."),
            ({"T": ["kind", "kind"]}, False, "has 'kind' twice."),
            ("ab", True, "must be a list of names, not 'ab'."),
            ([1, 2], True, "must be a list of names, not [1, 2]."),
            ([], True, "must be a list of names, not []."),
            ({}, True, "must be a list of names, not []."),
            ([], False, "must be a list of names, not []."),
            ({"T": []}, False, "must be a list of names, not []."),
        ],
    )
    def test_loses_no_column_without_a_word(self, columns, has_header, fault):
        """Names of which one would hide another, or that are none, are an error of the program, not of the file."""
        with pytest.raises(InvalidInput) as caught:
            read("a,b\nT,2\n", columns=columns, has_header=has_header)
        assert str(caught.value) == f"columns: {fault}"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "The file is empty."),
            ("\n\n", "The file is empty."),
            ("name,name\n", "The header has 'name' twice."),
            ("name,total\n", "The header lacks 'amount'."),
            ('a,"b"c\n', "Line 1: the header ',' expected after '\"'."),
        ],
    )
    def test_refuses_a_header_that_is_none(self, content, reason):
        """Without its columns a file has no meaning."""
        assert refused(content, columns=["name", "amount"]) == reason


class FaultTests:
    @pytest.mark.rule("FXR-11")
    def test_names_ragged_lines(self):
        """A line that has too few values or too many is faulty; the others are rows."""
        assert read("a,b\n1\n1,2\n1,2,3\n") == [
            FaultyLine(2, "has 1 values, not 2"),
            BatchInput(3, {"a": "1", "b": "2"}),
            FaultyLine(4, "has 3 values, not 2"),
        ]

    @pytest.mark.rule("FXR-11")
    def test_names_quotes_that_go_on(self):
        """What follows a quote on the same line is a fault of that line, unless it is let pass."""
        content = 'a,b\n"1"x,2\n3,4\n'
        assert read(content) == [
            FaultyLine(2, "',' expected after '\"'"),
            BatchInput(3, {"a": "3", "b": "4"}),
        ]
        assert [row.input for row in read(content, strict=False)] == [{"a": "1x", "b": "2"}, {"a": "3", "b": "4"}]

    @pytest.mark.rule("FXR-12")
    def test_names_lines_that_are_no_text(self):
        """Bytes that are not of the encoding make their line faulty, and no other."""
        assert read(b"a,b\n1,\xff\n2,\xc3\xa9\n") == [
            FaultyLine(2, "has bytes that are no utf-8"),
            BatchInput(3, {"a": "2", "b": "é"}),
        ]

    @pytest.mark.rule("FXR-12")
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("a\nb\n".encode("utf-16") + b"\x00", "In line 3 or after it: this is no utf-16: truncated data"),
            ("a\nb\n".encode("utf-16-le"), "In line 1 or after it: this is no utf-16: does not start with BOM"),
            (
                b"\xff\xfea\x00\n\x00\x00\xd8a\x00",
                "In line 1 or after it: this is no utf-16: illegal UTF-16 surrogate",
            ),
        ],
    )
    def test_refuses_what_is_no_text_where_lines_cannot_be_told(self, content, reason):
        """In UTF-16 what follows a fault may be anything, and text is decoded piece by piece."""
        # Each Python names the stream in its own way.
        assert re.sub(r"(UTF-16 s|S)tream ", "", refused(content, encoding="utf-16")) == f"{reason}."

    @pytest.mark.rule("FXR-12")
    @pytest.mark.parametrize("end", ["", "\n"])
    def test_refuses_a_record_that_is_too_long(self, settings, end):
        """As long as the limit is fine; one character more and the file is refused."""
        settings.ALYA = {"RECORD_CHARS_MAX": 10}
        assert read(f"a\n{'x' * (10 - len(end))}{end}")[0].line == 2
        assert refused(f"a\n\n{'x' * 11}{end}") == "Line 3: longer than 10 characters, the limit."
        assert refused('a\n1\n"' + "2\n" * 6) == "Line 3: longer than 10 characters, the limit."

    @pytest.mark.rule("FXR-12")
    def test_reads_no_more_of_a_long_line_than_the_limit(self, settings):
        """A line of a gigabyte, made while it is read, is refused before there are two megabytes of it."""
        settings.ALYA = {"RECORD_CHARS_MAX": 1_000_000}
        line = Endless(1_000_000_000)
        with pytest.raises(BadFile) as caught:
            list(read_csv(io.BufferedReader(line)))
        assert caught.value.reason == "Line 1: longer than 1000000 characters, the limit."
        assert line.given < 2_000_000

    @pytest.mark.rule("FXR-12")
    def test_refuses_a_quote_that_is_not_closed(self):
        """It swallows the lines behind it, so which of them are rows is not known."""
        assert refused('a\n1\n"2\n3\n4\n') == "Line 3: a value in quotes does not end: unexpected end of data."
        assert read('a\n1\n"2') == [BatchInput(2, {"a": "1"}), FaultyLine(3, "unexpected end of data")]

    @pytest.mark.rule("FXR-12")
    def test_reads_nul_characters(self):
        """They are part of a value, and what JSON cannot hold is found later."""
        assert read(b"a\n1\x002\n") == [BatchInput(2, {"a": "1\x002"})]


class Endless(io.RawIOBase):
    """A file of one line, which is made as it is read."""

    def __init__(self, size: int) -> None:
        self.given, self._size = 0, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self.given)
        buffer[:count] = b"x" * count
        self.given += count
        return count
