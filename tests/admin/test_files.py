from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from alya_django import BatchInput, batches, intake, register_batch_processor, register_file_checker
from alya_django.answers import Receipt
from alya_django.checkers import BadFile, FaultyLine, Route
from alya_django.models import BatchFile
from alya_django.testing import drain
from tests.admin.pages import BATCHES, FILES, column, links, table, text
from tests.db.test_plans import is_scan
from tests.processors import fail_odd

pytestmark = pytest.mark.django_db

NAME, STATE, BATCH, FAULTY, RECEIVED = range(5)
QUERIES_MAX = 12
GOOD = b"1\n2\n"
FAULTY_FILE = b"1\nx\n=3\n4\n"


def check(file: Any, file_name: str, context: dict[str, Any]) -> Iterator[Any]:
    """Take lines that are numbers, and no file without any."""
    for line, content in enumerate(file, 1):
        number = content.decode().strip()
        yield (
            BatchInput(line, {"amount": number}) if number.isdecimal() else FaultyLine(line, f"{number} is no amount")
        )
    if b"end" in content:
        raise BadFile("The file ends too soon.")


def only_bank(request: Any) -> list[str]:
    return ["bank"]


@pytest.fixture(autouse=True)
def _registered(registry: Any) -> None:
    register_batch_processor("bank", "transfer", fail_odd)
    register_file_checker("payments", check, app="bank", op="transfer")
    register_file_checker("orders", check, app="shop", op="order")


def receive(content: bytes = GOOD, file_name: str = "monday.csv", file_type: str = "payments", **more: Any) -> Receipt:
    return intake.process(file=content, file_name=file_name, file_type=file_type, **more)


def page_of(receipt: Receipt, what: str = "change") -> str:
    return f"{FILES}{receipt.file_id}/{what}/"


def body(response: Any) -> bytes:
    assert response.status_code == 200
    return b"".join(response.streaming_content)


def logged() -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


@pytest.mark.sqlite
class FileListTests:
    @pytest.mark.rule("ADM-70")
    def test_says_what_became_of_each(self, admin_client: Client) -> None:
        """Accepted with its batch, or rejected with the reason; the latest first."""
        accepted = receive(FAULTY_FILE)
        receive(b"end", "tuesday.csv")
        BatchFile.objects.create(object_id="in/half.csv", file_name="half.csv", file_type="payments")
        rows = table(admin_client.get(FILES))
        assert [row[NAME] for row in rows] == [
            "half.csv payments, 0 bytes",
            "tuesday.csv payments, 3 bytes",
            "monday.csv payments, 9 bytes",
        ]
        assert [row[STATE] for row in rows] == [
            "◔ not decided",
            "✕ rejected The file ends too soon.",
            "✓ accepted",
        ]
        assert [row[BATCH] for row in rows] == ["-", "-", str(accepted.batch_id)[:8]]
        assert [row[FAULTY] for row in rows] == ["0", "1", "2"]

    @pytest.mark.rule("ADM-70")
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("outcome=accepted", ["monday.csv payments, 4 bytes"]),
            ("outcome=rejected", ["orders.csv orders, 3 bytes"]),
            ("outcome=undecided", []),
            ("file_type=orders", ["orders.csv orders, 3 bytes"]),
            ("file_type=none", []),
            ("outcome=none", []),
        ],
    )
    def test_is_narrowed_down(self, query: str, names: list[str], admin_client: Client) -> None:
        """By what became of them, and by their type."""
        receive()
        receive(b"end", "orders.csv", "orders")
        assert column(admin_client.get(f"{FILES}?{query}")) == names

    def test_shows_text_as_text(self, admin_client: Client) -> None:
        """Whatever a sender calls a file."""
        receive(file_name="<script>alert(1)</script>.csv")
        response = admin_client.get(FILES)
        assert "<script>alert(1)" not in response.content.decode()
        assert column(response) == ["<script>alert(1)</script>.csv payments, 4 bytes"]

    @pytest.mark.rule("ADM-70")
    def test_costs_the_same_for_many(self, admin_client: Client) -> None:
        """The number of queries is that of one file."""
        receive()
        for number in range(5):
            receive(b"%d\n" % number, f"{number}.csv")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            admin_client.get(FILES)
        assert len(queries) <= QUERIES_MAX


@pytest.mark.sqlite
class FilePageTests:
    @pytest.mark.rule("ADM-71")
    def test_tells_all_that_is_known(self, admin_client: Client) -> None:
        """Where it went, how many of its lines are faulty, and what its bytes are."""
        receipt = receive(FAULTY_FILE)
        response = admin_client.get(page_of(receipt))
        said = text(response)
        assert "✓ accepted" in said
        assert "Faulty lines: 2" in said
        assert BatchFile.objects.get().checksum in said
        assert links(response)[str(receipt.batch_id)[:8]] == f"{BATCHES}{receipt.batch_id}/change/"

    @pytest.mark.rule("ADM-71")
    def test_says_why_it_was_rejected(self, admin_client: Client) -> None:
        """In the words of the checker, whole."""
        assert "The file ends too soon." in text(admin_client.get(page_of(receive(b"end"))))

    def test_what_is_not_there_is_not_offered(self, admin_client: Client) -> None:
        """A file that has not arrived whole has no content, and one without faults no faults."""
        file = BatchFile.objects.create(object_id="in/half.csv", file_name="half.csv", file_type="payments")
        response = admin_client.get(f"{FILES}{file.pk}/change/")
        assert "half.csv" not in links(response)
        for what in ("content", "faults"):
            assert admin_client.get(f"{FILES}{file.pk}/{what}/").status_code == 404
        assert logged() == []

    def test_there_is_none(self, admin_client: Client) -> None:
        """As with other pages of the admin; of a download there is nothing to be led to."""
        assert admin_client.get(f"{FILES}4711/change/").status_code == 302
        assert admin_client.get(f"{FILES}4711/content/").status_code == 404


@pytest.mark.sqlite
class FileDownloadTests:
    @pytest.mark.rule("ADM-72")
    def test_gives_the_faulty_lines(self, admin_client: Client) -> None:
        """With their reasons, as a file of its own; the history says who took it."""
        receipt = receive(FAULTY_FILE)
        response = admin_client.get(links(admin_client.get(page_of(receipt)))["monday.csv.faults.csv"])
        assert body(response) == b"line,reason\n2,x is no amount\n3,'=3 is no amount\n"
        assert response["Content-Disposition"] == 'attachment; filename="monday.csv.faults.csv"'
        assert logged() == ["Downloaded the faulty lines."]

    @pytest.mark.rule("ADM-72")
    def test_gives_the_file_as_it_came(self, admin_client: Client) -> None:
        """Byte for byte, also one that was rejected."""
        for receipt in (receive(FAULTY_FILE), receive(b"end")):
            address = links(admin_client.get(page_of(receipt)))["monday.csv"]
            assert body(admin_client.get(address)) == (FAULTY_FILE if receipt.accepted else b"end")
        assert logged() == ["Downloaded the file."] * 2

    def test_a_line_break_in_a_name_breaks_no_header(self, admin_client: Client) -> None:
        """It is left out of the name that the browser is told."""
        receipt = receive(file_name="monday.csv\n")
        response = admin_client.get(page_of(receipt, "content"))
        assert response["Content-Disposition"] == 'attachment; filename="monday.csv"'
        assert body(response) == GOOD

    @pytest.mark.rule("ADM-72")
    def test_is_in_the_history(self, admin_client: Client) -> None:
        """Which the page of the file leads to."""
        receipt = receive()
        body(admin_client.get(page_of(receipt, "content")))
        assert "Downloaded the file." in text(admin_client.get(links(admin_client.get(page_of(receipt)))["History"]))


@pytest.mark.sqlite
class FilePermissionTests:
    @pytest.mark.rule("ADM-72")
    @pytest.mark.parametrize(
        ("permissions", "offered"),
        [
            ([], []),
            (["view_input"], []),
            (["download_output"], ["faults"]),
            (["download_output", "view_input"], ["faults", "content"]),
        ],
    )
    def test_downloads_need_permissions(
        self, permissions: list[str], offered: list[str], staff_client: Callable[..., Client]
    ) -> None:
        """A file as it came is for those who may see inputs, too: nothing in it is masked."""
        receipt = receive(FAULTY_FILE)
        client = staff_client("view_batchfile", *permissions)
        response = client.get(page_of(receipt))
        for what, name in (("faults", "monday.csv.faults.csv"), ("content", "monday.csv")):
            assert name in text(response)
            assert (name in links(response)) is (what in offered)
            answer = client.get(page_of(receipt, what))
            assert (body(answer) != b"") if what in offered else (answer.status_code == 403)

    def test_the_pages_need_theirs(self, staff_client: Callable[..., Client]) -> None:
        """Whoever may see batches, and download, does not see files."""
        receipt = receive(FAULTY_FILE)
        client = staff_client("view_batch", "download_output", "view_input")
        for address in (FILES, page_of(receipt), page_of(receipt, "faults"), page_of(receipt, "content")):
            assert client.get(address).status_code == 403

    @pytest.mark.rule("ADM-2")
    def test_files_of_other_apps_are_not_there(self, admin_client: Client, settings: Any) -> None:
        """Whose a file is, its type says, also of one that was rejected."""
        settings.ALYA = {"ADMIN_SCOPE": f"{__name__}.only_bank"}
        own, others = receive(), receive(file_name="orders.csv", file_type="orders")
        response = admin_client.get(FILES)
        assert column(response) == ["monday.csv payments, 4 bytes"]
        assert "orders" not in text(response)
        assert admin_client.get(page_of(others)).status_code == 302
        assert admin_client.get(page_of(others, "content")).status_code == 404
        assert admin_client.get(page_of(own)).status_code == 200

    @pytest.mark.rule("ADM-2")
    def test_of_a_type_for_several_apps_are_for_those_who_see_them_all(
        self, admin_client: Client, settings: Any
    ) -> None:
        """Whatever has become of one; the page of its batch names it, and leads nowhere that is not there."""

        def by_name(file: Any, file_name: str, context: Any) -> Iterator[Any]:
            yield Route(file_name.partition(".")[0], "order")
            yield from check(file, file_name, context)

        register_file_checker("mixed", by_name, routes=[Route("bank", "order"), Route("shop", "order")])
        receipt = receive(file_name="bank.csv", file_type="mixed")
        page = f"{BATCHES}{receipt.batch_id}/change/"
        assert links(admin_client.get(page))["bank.csv"] == page_of(receipt)
        assert column(admin_client.get(FILES)) == ["bank.csv mixed, 4 bytes"]
        settings.ALYA = {"ADMIN_SCOPE": f"{__name__}.only_bank"}
        response = admin_client.get(page)
        assert "bank.csv" in text(response)
        assert "bank.csv" not in links(response)
        assert column(admin_client.get(FILES)) == []
        assert admin_client.get(page_of(receipt, "content")).status_code == 404


@pytest.mark.sqlite
class BatchPageTests:
    @pytest.mark.rule("ADM-71")
    def test_leads_to_the_file_it_came_as(self, admin_client: Client) -> None:
        """And says how many of its lines are faulty."""
        receipt = receive(FAULTY_FILE)
        response = admin_client.get(f"{BATCHES}{receipt.batch_id}/change/")
        assert links(response)["monday.csv"] == page_of(receipt)
        assert "monday.csv 9 bytes, 2 faulty lines" in text(response)

    @pytest.mark.rule("ADM-73")
    def test_gives_the_return_file(self, admin_client: Client) -> None:
        """The failed rows, to be corrected and received again; the history says who took it."""
        batch_id = receive().batch_id
        page = f"{BATCHES}{batch_id}/change/"
        assert "Return file" not in links(admin_client.get(page))
        drain()
        response = admin_client.get(links(admin_client.get(page))["Return file"])
        assert body(response) == b"amount,alya_line,alya_reason\r\n1,1,odd (line: 1)\r\n"
        assert response["Content-Disposition"] == 'attachment; filename="monday.csv.return.csv"'
        assert logged() == ["Downloaded the return file."]

    @pytest.mark.rule("ADM-73")
    def test_the_return_file_needs_both_permissions(self, staff_client: Callable[..., Client], ended: UUID) -> None:
        """It has the inputs as they are."""
        client = staff_client("view_batch", "download_output")
        assert "Return file" not in links(client.get(f"{BATCHES}{ended}/change/"))
        assert client.get(f"{BATCHES}{ended}/return-file/").status_code == 403

    @pytest.mark.rule("ADM-73")
    def test_there_may_be_nothing_to_return(self, admin_client: Client) -> None:
        """Not of a batch that has not ended."""
        waiting = batches.submit("bank", "transfer", [{}], wait=True)
        assert admin_client.get(f"{BATCHES}{waiting}/return-file/").status_code == 404
        assert logged() == []


@pytest.mark.slow
class FilePlanTests:
    @pytest.mark.rule("ADM-70")
    @pytest.mark.parametrize("query", ["", "?outcome=rejected", "?outcome=undecided", "?file_type=payments"])
    def test_no_page_reads_all_files(self, query: str, admin_client: Client) -> None:
        """Among 20 000, of which few were rejected."""
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO alya_batch_files (object_id, error_object_id, file_name, file_type, content_type, size,"
                " checksum, is_accepted, is_repeat, nfaulty, error_message, metadata, batch_id)"
                " SELECT n::text, '', 'f', 'payments', '', 0, n::text, n % 1000 <> 0, false, 0, '', '{}',"
                " CASE WHEN n % 1000 <> 0 THEN GEN_RANDOM_UUID() END FROM GENERATE_SERIES(1, 20000) AS n"
            )
            cursor.execute("ANALYZE alya_batch_files")
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(f"{FILES}{query}").status_code == 200
        ours = [query["sql"] for query in queries if "alya_batch_files" in query["sql"]]
        assert ours
        assert not [sql for sql in ours if is_scan(sql, "alya_batch_files")]
