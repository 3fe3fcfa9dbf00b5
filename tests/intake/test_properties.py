"""What holds of the readers whatever they are given."""

from __future__ import annotations

import csv
import gzip
import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alya_django import BadFile, BatchInput, FaultyLine
from alya_django.intake import read_csv, read_xlsx
from alya_django.intake.objects import NAME_BYTES_MAX, object_name
from alya_django.intake.unpack import unpacked
from tests.intake.workbooks import table, workbook

ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1"])
# What a file can say: no lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Bytes that look like something are more of a trial than any.
BYTES = st.lists(
    st.one_of(
        st.binary(max_size=10),
        st.sampled_from(
            [b'"', b",", b"\n", b"\r", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"a,b\n", b"\x1f\x8b", b"PK\3\4"]
        ),
    ),
    max_size=30,
).map(b"".join)


def lines_of(reader) -> list[int]:
    """Read to the end and return the lines; a file may be refused on the way."""
    lines = []
    with suppress(BadFile):
        for line in reader:
            assert isinstance(line, BatchInput | FaultyLine)
            lines.append(line.line)
    return lines


class AnyBytesTests:
    @pytest.mark.rule("FXR-23")
    @given(BYTES, ENCODINGS, st.booleans())
    def test_read_csv_yields_lines_or_refuses(self, content, encoding, is_strict):
        """Nothing but BadFile is raised, and lines come in their order."""
        lines = lines_of(read_csv(io.BytesIO(content), encoding=encoding, strict=is_strict))
        assert lines == sorted(set(lines))

    @pytest.mark.rule("FXR-23")
    @given(BYTES)
    def test_unpacked_reads_or_refuses(self, content):
        """So it is for what is compressed, and for what only seems so."""
        lines_of(read_csv(io.BytesIO(gzip.compress(content)[:-1])))
        with suppress(BadFile):
            unpacked(io.BufferedReader(io.BytesIO(content))).read()

    @pytest.mark.rule("FXR-23")
    # Each begins a process.
    @settings(max_examples=20, deadline=None)
    @given(st.binary(max_size=40), st.integers(0, 900), st.integers(0, 20))
    def test_read_xlsx_yields_lines_or_refuses(self, noise, start, width):
        """A workbook with noise in it is a workbook or a bad file."""
        content = workbook(table(("a", "b"), ("x", 1)))
        lines_of(read_xlsx(io.BytesIO(content[:start] + noise + content[start + width :])))

    @pytest.mark.rule("FXR-5", "FXR-15")
    @given(st.text(max_size=300))
    def test_any_name_has_an_object_below_the_prefix(self, name):
        """Three parts, none of which leads anywhere else."""
        prefix, _token, last = object_name("in", name).split("/")
        assert (prefix, last.startswith(".")) == ("in", False)
        assert 0 < len(last.encode()) <= NAME_BYTES_MAX


class RoundTripTests:
    @pytest.mark.rule("FXR-11")
    @given(
        st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=8),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
        st.sampled_from(["\n", "\r\n"]),
    )
    def test_reads_what_csv_has_written(self, rows, encoding, end):
        """Whatever the values, they come back as they were."""
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([["a", "b"], *rows])
        found = list(read_csv(io.BytesIO(file.getvalue().encode(encoding)), encoding=encoding))
        assert [[line.input["a"], line.input["b"]] for line in found] == rows
