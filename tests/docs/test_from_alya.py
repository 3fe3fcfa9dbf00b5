"""The page for those who come from Alya: every name of the original has its place, and every place exists."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client

from alya_django import (
    ErrorMessage,
    RowOutcome,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.conf import DEFAULTS
from alya_django.models import Batch, BatchFile, BatchRow
from alya_django.testing import drain, process_row
from tests.admin.pages import BATCHES, FILES
from tests.docs import pages
from tests.invariants import check_invariants
from tests.processors import Recording, RecordingQuery

NAMES = Path(__file__).with_name("alya_names.txt")
DUMP = Path(__file__).with_name("alya_dump.sql")
WIKI = "The wiki"
TEXTS = "Errors by their texts"
# What calls of Alya return as errors, by how their texts begin.
ERRORS = (
    "invalid batch ID",
    "invalid request ID",
    "batch not found",
    "failed to get batch by ID",
    "batch status must be 'wait' to append rows",
    "batch status must be 'wait' to change to 'queued'",
    "invalid line number",
    "no pending rows found for batch",
    "cannot abort batch with status",
    "processor already registered",
    "initializer already registered",
    "file check function already registered for file type",
    "no file check function registered for file type",
    "file check failed for file type",
    "failed to read object contents",
    "failed to submit batch",
    "failed to store file contents",
    "failed to record batch file",
)
# What the wiki describes without a name that the original has.
OF_THE_WIKI = ("list of batches", "list of slow queries", "batch status", "mark done", "is alive")


@pytest.fixture
def page() -> str:
    return pages.read("explanation/from-alya.md")


def names() -> dict[str, set[str]]:
    """Return the original's names by section."""
    sections: dict[str, set[str]] = {}
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            section, listed = line.split(": ")
            sections.setdefault(section, set()).update(listed.split())
    return sections


def resolve(full_name: str) -> Any:
    """Return what a full name stands for; raise if there is no such thing."""
    package, *rest = full_name.split(".")
    found: Any = import_module(package)
    for number, name in enumerate(rest, 1):
        try:
            found = getattr(found, name)
        except AttributeError:
            found = import_module(".".join([package, *rest[:number]]))
    return found


class FromAlyaTests:
    @pytest.mark.parametrize("section", names())
    def test_gives_every_name_its_place(self, page: str, section: str) -> None:
        """Each section has the original's names, no more and no fewer, each with a place or a reason."""
        rows = pages.rows(page, section)
        assert {name.strip("`") for name, _place in rows} == names()[section]
        assert len(rows) == len(names()[section])
        assert all(place for _name, place in rows)

    def test_gives_what_the_wiki_adds_its_place(self, page: str) -> None:
        """The functions that only the wiki has are there."""
        assert {name for name, _place in pages.rows(page, WIKI)} >= set(OF_THE_WIKI)

    def test_gives_every_error_its_place(self, page: str) -> None:
        """Whoever looks for a text finds what is raised here in its stead."""
        stated = [text for texts, _place in pages.rows(page, TEXTS) for text in texts.split(", ")]
        assert sorted(stated) == sorted(ERRORS)

    def test_every_place_exists(self, page: str) -> None:
        """Each full name on the page can be imported."""
        found = re.findall(r"`(alya_django\.(?!engine)[\w.]+)`", page)
        assert found
        for full_name in found:
            assert resolve(full_name) is not None

    def test_every_setting_exists(self, page: str) -> None:
        """Each setting that the page names is one."""
        for key in re.findall(r"setting `(\w+)`", page):
            assert key == "ALYA" or key in DEFAULTS


def block(page: str, language: str) -> str:
    """Return the only block of the page in a language."""
    (found,) = (one.text for one in pages.blocks(page) if one.language == language)
    return found


@pytest.mark.usefixtures("registry")
class ProcessorTests:
    @pytest.fixture
    def run(self, page: str) -> Any:
        exec(compile(block(page, "python"), "from-alya.md", "exec"), {"__name__": "page"})
        return lambda creditor: process_row("bank", "transfer", {"creditor": creditor}, line=7)

    @pytest.mark.django_db
    def test_does_what_the_one_in_go_does(self, run: Any) -> None:
        """The same result, output line and message."""
        done: RowOutcome = run("1001")
        assert (done.status, done.result) == (Status.SUCCESS, {"reference": "T-1001"})
        assert done.output_lines == {"posted.csv": "7,T-1001"}
        refused: RowOutcome = run("9999")
        assert refused.messages == (ErrorMessage("account_closed", field="creditor", msgid=1005),)


def batch(digit: str) -> str:
    """Return the id of a batch of the dump, of which the first digit is given."""
    return f"{digit}0000000-0000-0000-0000-000000000000"


@pytest.mark.django_db
@pytest.mark.usefixtures("registry", "folder")
class HistoryTests:
    """What the page's statements make of a dump, in a transaction of the test's."""

    @pytest.fixture(autouse=True)
    def _brought_over(self, page: str) -> None:
        statements = block(page, "sql").replace("BEGIN;\n", "").replace("COMMIT;\n", "")
        with connection.cursor() as cursor:
            cursor.execute(DUMP.read_text(encoding="utf-8"))
            cursor.execute(statements)
            cursor.execute("SET LOCAL TIME ZONE 'UTC'")

    def test_keeps_what_must_hold(self) -> None:
        """The tables are as if workers had written them, and what had not ended is left out."""
        check_invariants()
        assert sorted(str(pk)[0] for pk in Batch.objects.values_list("pk", flat=True)) == list("1234567")
        assert BatchRow.objects.count() == 15

    def test_answers_for_a_batch(self) -> None:
        """All that was kept of it and its rows; the times are those of the zone."""
        found = batches.result(batch("1"))
        assert (found.status, found.nrows, found.nsuccess) == (Status.SUCCESS, 2, 2)
        first, second = found.rows
        assert (first.line, first.result, first.output_lines) == (1, {"reference": "a"}, {"posted.csv": "1,a"})
        assert (first.messages, first.done_by, first.attempts) == ((), "host-17", 1)
        assert (second.result, second.messages, second.output_lines) == ({}, (), {})
        kept = Batch.objects.get(pk=batch("1"))
        assert (kept.app, kept.op, kept.context, kept.input_file) == ("bank", "transfer", {"day": 1}, "one.csv")
        assert kept.requested_at == datetime(2026, 4, 16, 4, 30, 0, 500_000, tzinfo=UTC)
        assert first.done_at == datetime(2026, 4, 16, 4, 31, tzinfo=UTC)
        assert BatchRow.objects.get(batch=batch("1"), line=1).input == {"n": 12345678901234567890123}

    def test_answers_for_failures(self) -> None:
        """Messages, counts by error code, and a retry of what has failed."""
        found = batches.result(batch("2"))
        assert (found.status, found.nsuccess, found.nfailed) == (Status.FAILED, 1, 3)
        assert found.rows[1].messages == (ErrorMessage("closed", field="creditor", vals=("9999",), msgid=1005),)
        assert (found.rows[2].result, found.rows[2].done_by) == ({"seen": 1}, "")
        assert Batch.objects.get(pk=batch("2")).error_counts() == {"closed": 2, "": 1}
        assert [row.line for row in batches.iter_rows(batches.retry(batch("2")))] == [2, 3, 4]

    def test_answers_for_what_was_aborted(self) -> None:
        """What had ended stays as it is; there are no output files."""
        found = batches.result(batch("3"))
        assert (found.status, found.nsuccess, found.naborted, found.output_files) == (Status.ABORTED, 1, 1, {})
        assert [(row.status, row.result) for row in found.rows] == [(Status.SUCCESS, {}), (Status.ABORTED, None)]
        assert batches.abort(batch("3")).status is Status.ABORTED

    def test_answers_for_slow_queries(self) -> None:
        """They are told by their one row of line 0; a context that is no object is put into one."""
        assert slow_queries.result(batch("4")).result == [1, 2]
        assert Batch.objects.get(pk=batch("4")).context == {"context": 7}
        (message,) = slow_queries.result(batch("5")).messages
        assert (message.msgid, message.vals) == (10, ("down",))
        assert slow_queries.status(batch("6")).status is Status.ABORTED

    def test_finds_the_output_files(self) -> None:
        """In the storage that has the objects, under their logical names."""
        default_storage.save("10000000_posted.csv", ContentFile(b"1,a\n"))
        default_storage.save("40000000.pdf", ContentFile(b"%PDF"))
        with batches.open_output(batch("1"), "posted.csv") as file:
            assert file.read() == b"1,a\n"
        with slow_queries.open_output(batch("4"), "report.pdf") as file:
            assert file.read() == b"%PDF"

    def test_numbers_lines_that_cannot_stay(self) -> None:
        """One that stands twice, or is below 1, comes behind the others; nothing is lost."""
        rows = dict(BatchRow.objects.filter(batch=batch("7")).values_list("input", "line"))
        assert rows == {"first": 5, "sixth": 6, "zero": 7, "second": 9}

    def test_gives_workers_nothing_to_do(self) -> None:
        """Nothing runs again, and nobody is told of what ended long ago."""
        processor, query = Recording(), RecordingQuery()
        register_batch_processor("bank", "transfer", processor)
        register_slow_query_processor("bank", "report", query)
        assert drain() == 0
        assert (processor.done, query.done, processor.rows, query.rows) == ([], [], [], [])

    def test_is_seen_in_the_admin(self, admin_client: Client) -> None:
        """The lists, the pages of batches, and the records of files."""
        pages_of_batches = [f"{BATCHES}{pk}/change/" for pk in Batch.objects.values_list("pk", flat=True)]
        pages_of_files = [f"{FILES}{pk}/change/" for pk in BatchFile.objects.values_list("pk", flat=True)]
        assert (len(pages_of_batches), len(pages_of_files)) == (7, 2)
        for address in (BATCHES, FILES, *pages_of_batches, *pages_of_files):
            assert admin_client.get(address).status_code == 200

    def test_records_what_files_came(self) -> None:
        """As accepted, with their names and sizes; Alya's checksum, which is of the name, is not taken over."""
        files = BatchFile.objects.order_by("pk").values_list(
            "file_name", "file_type", "size", "is_accepted", "checksum"
        )
        assert list(files) == [("one.csv", "alya", 17, True, ""), ("two.csv", "alya", 17, True, "")]
