from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from alya_django import (
    ErrorMessage,
    RowFailed,
    batches,
    outputs,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.models import Batch
from alya_django.testing import drain
from tests.admin.pages import BATCHES, links, text
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


def output(batch_id: UUID, name: str) -> str:
    return f"{BATCHES}{batch_id}/output/?{urlencode({'name': name})}"


def failed_lines(batch_id: UUID) -> str:
    return f"{BATCHES}{batch_id}/failed-lines/"


def logged() -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


@pytest.fixture
def written(registry: Any) -> UUID:
    """A batch that has ended, with two output files."""
    register_batch_processor("bank", "transfer", write_lines)
    batch_id = batches.submit("bank", "transfer", [{"late.csv": "a", "sub/übrig <1>.csv": "b"}])
    drain()
    return batch_id


@pytest.fixture
def failing(registry: Any) -> Callable[..., UUID]:
    """Make a batch whose rows fail with the messages they are given."""

    def make(*messages: list[ErrorMessage]) -> UUID:
        def fail(row: Any) -> None:
            raise RowFailed(*messages[row.line - 1])

        register_batch_processor("bank", "transfer", fail)
        batch_id = batches.submit("bank", "transfer", [{}] * len(messages))
        drain()
        return batch_id

    return make


class OutputFileTests:
    @pytest.mark.rule("SEC-5")
    def test_names_objects_for_those_who_may_have_them(self, written: UUID, staff_client: Any) -> None:
        """No page, and nothing that a page asks for, tells others where a file lies."""
        folder = next(iter(Batch.objects.get(pk=written).object_names().values())).rpartition("/")[0]
        viewer = staff_client("view_batch", "view_batchrow", "view_batchfile", "view_input")
        places = [
            BATCHES,
            f"{BATCHES}{written}/change/",
            f"{BATCHES}{written}/history/",
            f"{BATCHES}progress/?ids={written}",
        ]
        for place in places:
            response = viewer.get(place, follow=True)
            assert response.status_code == 200, place
            assert folder not in response.content.decode(), place
        User.objects.get().user_permissions.add(Permission.objects.get(codename="download_output"))
        assert folder in viewer.get(f"{BATCHES}{written}/change/").content.decode()

    @pytest.mark.rule("ADM-5")
    def test_is_streamed_and_logged(self, written: UUID, admin_client: Client) -> None:
        """As an attachment that no browser opens, under its name; the history says who took it."""
        found = links(admin_client.get(f"{BATCHES}{written}/change/"))
        response = admin_client.get(found["late.csv"])
        assert body(response) == b"a\n"
        assert response["Content-Disposition"] == 'attachment; filename="late.csv"'
        assert response["X-Content-Type-Options"] == "nosniff"
        assert logged() == ["Downloaded the output file late.csv."]

    def test_keeps_only_the_last_part_of_a_name(self, written: UUID, admin_client: Client) -> None:
        """A name that is a path, or has letters of any kind, is one file for the browser."""
        response = admin_client.get(links(admin_client.get(f"{BATCHES}{written}/change/"))["sub/übrig <1>.csv"])
        assert body(response) == b"b\n"
        assert response["Content-Disposition"] == "attachment; filename*=utf-8''%C3%BCbrig%20%3C1%3E.csv"

    @pytest.mark.parametrize("name", ["", "other.csv", "../late.csv", "\0"])
    def test_what_is_not_there_is_not_found(self, name: str, written: UUID, admin_client: Client) -> None:
        """No other name leads anywhere, and nothing is logged."""
        assert admin_client.get(output(written, name)).status_code == 404
        assert logged() == []

    def test_a_line_break_in_a_name_breaks_no_header(self, admin_client: Client, registry: Any) -> None:
        """It is left out of the name that the browser is told."""
        register_batch_processor("bank", "transfer", write_lines)
        batch_id = batches.submit("bank", "transfer", [{"late\r\n.csv\n": "a"}])
        drain()
        response = admin_client.get(output(batch_id, "late\r\n.csv\n"))
        assert response["Content-Disposition"] == 'attachment; filename="late.csv"'
        assert body(response) == b"a\n"

    def test_of_a_slow_query(self, admin_client: Client, registry: Any) -> None:
        """A slow query's files are downloaded alike."""
        from django.core.files.base import ContentFile

        from alya_django import QueryResult

        register_slow_query_processor(
            "bank", "report", lambda row: QueryResult.success(output_files={"a.txt": ContentFile(b"sum")})
        )
        query = slow_queries.submit("bank", "report", {})
        drain()
        assert body(admin_client.get(output(query, "a.txt"))) == b"sum"

    @pytest.mark.rule("ADM-5")
    def test_is_given_by_a_link_that_expires_where_the_storage_signs_one(
        self, written: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The link is made as it is followed, for a minute, and stands in no page."""
        asked = {}

        def sign(name: str, *, disposition: str, seconds: int) -> str:
            asked.update(name=name, disposition=disposition, seconds=seconds)
            return "https://storage/late.csv?signature=1"

        monkeypatch.setattr("alya_django.admin.downloads.outputs.signed_link", sign)
        assert "signature" not in admin_client.get(f"{BATCHES}{written}/change/").content.decode()
        response = admin_client.get(output(written, "late.csv"))
        assert (response.status_code, response["Location"]) == (302, "https://storage/late.csv?signature=1")
        assert "no-store" in response["Cache-Control"]
        assert asked == {
            "name": Batch.objects.get().object_names()["late.csv"],
            "disposition": 'attachment; filename="late.csv"',
            "seconds": 60,
        }
        assert logged() == ["Downloaded the output file late.csv."]


class FailedLinesTests:
    @pytest.mark.rule("ADM-5")
    def test_has_a_line_for_each_message(self, failing: Callable[..., UUID], admin_client: Client) -> None:
        """Line, errcode, field and values; and the history says who took it."""
        batch_id = failing(
            [ErrorMessage("limit", "amount", ("5", "7"))], [ErrorMessage("closed"), ErrorMessage("missing", "name")]
        )
        found = links(admin_client.get(f"{BATCHES}{batch_id}/change/"))
        response = admin_client.get(found["Failed lines (CSV)"])
        head, *lines = csv.reader(io.StringIO(body(response).decode()))
        assert head == ["line", "errcode", "field", "values", "attempts", "done_by", "done_at"]
        assert [line[:5] for line in lines] == [
            ["1", "limit", "amount", '["5", "7"]', "1"],
            ["2", "closed", "", "", "1"],
            ["2", "missing", "name", "", "1"],
        ]
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert response["X-Content-Type-Options"] == "nosniff"
        name = f"bank-transfer-{str(batch_id)[:8]}-failed.csv"
        assert response["Content-Disposition"] == f'attachment; filename="{name}"'
        assert logged() == ["Downloaded the failed lines."]

    @pytest.mark.rule("ADM-30")
    def test_hides_what_is_masked(
        self, failing: Callable[..., UUID], staff_client: Callable[..., Client], settings: Any
    ) -> None:
        """Who may not see inputs does not see them in the messages either."""
        settings.ALYA = {"MASK_KEYS": ["vals"]}
        batch_id = failing([ErrorMessage("limit", "amount", ("5",))])
        response = staff_client("view_batch", "download_output").get(failed_lines(batch_id))
        assert '1,limit,amount,"[""•••""]",1' in body(response).decode()

    @pytest.mark.rule("ADM-5")
    @pytest.mark.parametrize(("start", "shown"), [*((char, f"'{char}") for char in "=+-@\t"), ("\r", "\\r")])
    def test_no_cell_is_a_formula(
        self, start: str, shown: str, failing: Callable[..., UUID], admin_client: Client
    ) -> None:
        """What a spreadsheet would run is made text."""
        batch_id = failing([ErrorMessage("limit", f"{start}cmd|' /C calc'!A0")])
        _, line = csv.reader(io.StringIO(body(admin_client.get(failed_lines(batch_id))).decode(), newline=""))
        assert line[2] == f"{shown}cmd|' /C calc'!A0"

    def test_is_read_as_it_is_sent(
        self, failing: Callable[..., UUID], admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Page by page, not all at once."""
        monkeypatch.setattr("alya_django.batches.PAGE_ROWS", 2)
        batch_id = failing(*[[ErrorMessage("limit")]] * 5)
        parts = list(admin_client.get(failed_lines(batch_id)).streaming_content)
        assert len(parts) == 6

    def test_is_offered_where_there_are_any(self, written: UUID, admin_client: Client) -> None:
        """Not of a batch without a failed row."""
        assert "Failed lines (CSV)" not in links(admin_client.get(f"{BATCHES}{written}/change/"))


class GoneTests:
    @pytest.mark.rule("ADM-5")
    def test_says_that_the_object_is_gone(self, written: UUID, admin_client: Client) -> None:
        """Whoever has removed it from the storage: there is nothing to give, and nothing to log."""
        outputs.delete([Batch.objects.get().object_names()["late.csv"]])
        assert admin_client.get(output(written, "late.csv")).status_code == 404
        assert logged() == []


class AllowedTests:
    @pytest.mark.rule("ADM-5")
    def test_needs_its_permission(self, written: UUID, staff_client: Callable[..., Client]) -> None:
        """Without it, files are named and not given."""
        client = staff_client("view_batch")
        response = client.get(f"{BATCHES}{written}/change/")
        assert "late.csv" in text(response)
        assert "late.csv" not in links(response)
        for address in (output(written, "late.csv"), failed_lines(written)):
            assert client.get(address).status_code == 403
        assert logged() == []

    @pytest.mark.rule("ADM-2")
    def test_nothing_is_found_out_of_scope(self, written: UUID, admin_client: Client, settings: Any) -> None:
        """A file of another app is not there."""
        Batch.objects.update(app="shop")
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        for address in (output(written, "late.csv"), failed_lines(written)):
            assert admin_client.get(address).status_code == 404

    @pytest.mark.rule("ADM-15")
    @pytest.mark.parametrize("page", ["failed-lines", "return-file"])
    def test_a_slow_query_has_no_lines_to_download(self, page: str, admin_client: Client, registry: Any) -> None:
        """It is not there, rather than an error, and nothing is logged."""
        register_slow_query_processor("bank", "report", lambda row: {})
        query = slow_queries.submit("bank", "report", {})
        drain()
        assert admin_client.get(f"{BATCHES}{query}/{page}/").status_code == 404
        assert logged() == []

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "head"])
    def test_is_only_gotten(self, method: str, written: UUID, admin_client: Client) -> None:
        """Other methods neither give nor log anything."""
        for address in (output(written, "late.csv"), failed_lines(written)):
            assert getattr(admin_client, method)(address).status_code == 405
        assert logged() == []
