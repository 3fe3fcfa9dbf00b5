from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import (
    BatchDetails,
    BatchInput,
    Row,
    RowFailed,
    Status,
    batches,
    register_batch_processor,
    slow_queries,
)
from alya_django.models import Batch, BatchErrors, BatchProgress, BatchRow
from alya_django.testing import drain
from tests.admin.pages import BATCHES, ROWS, column, line_of, links, rows_of, table, text
from tests.db.test_plans import is_scan, rows_read

pytestmark = pytest.mark.django_db

QUERIES_MAX = 12
# A thousand rows that are looked at, each counted at the index and at the table, and a page of a hundred.
READ_MAX = 2_300
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def submit(count: int = 1) -> UUID:
    return batches.submit("bank", "transfer", ({"n": n} for n in range(count)))


@pytest.mark.sqlite
class RowListTests:
    def test_asks_for_a_batch(self, admin_client: Client) -> None:
        """Without a batch there are no rows, and the way to one."""
        submit()
        response = admin_client.get(ROWS)
        assert "Choose a batch: its page leads to its rows." in text(response)
        assert table(response) == []
        assert links(response)["Choose a batch"] == BATCHES

    def test_shows_the_rows_of_one_batch(self, admin_client: Client, ended: UUID) -> None:
        """A row is one line: line, state, first message, attempts, who and when; other batches' rows are away."""
        submit()
        BatchRow.objects.filter(batch=ended).update(claimed_at=NOON, done_at=NOON + timedelta(seconds=0.25))
        rows = table(admin_client.get(rows_of(ended)))
        done_by = BatchRow.objects.get(batch=ended, line=1).done_by
        assert len(rows) == 10
        assert rows[0] == ["1", "✕ failed", "odd (line: 1)", "1", done_by, "0.250 s"]
        assert rows[1] == ["2", "✓ success", "-", "1", done_by, "0.250 s"]

    def test_says_of_which_batch(self, admin_client: Client, ended: UUID) -> None:
        """The page names the batch, says how far it has come and leads to it."""
        response = admin_client.get(rows_of(ended))
        assert f"bank/transfer {ended} 100.0 %, 10 of 10 rows" in text(response)
        assert links(response)["Batch"] == f"{BATCHES}{ended}/change/"

    def test_shows_the_row_of_a_slow_query(self, admin_client: Client) -> None:
        """A slow query has one row, of line 0."""
        query_id = slow_queries.submit("bank", "report", {})
        assert column(admin_client.get(rows_of(query_id))) == ["0"]

    @pytest.mark.parametrize(
        ("state", "lines"),
        [("queued", "5"), ("requeued", "4"), ("inprog", "3"), ("success", "2"), ("failed", "1"), ("aborted", None)],
    )
    def test_filters_by_state(self, state: str, lines: str | None, admin_client: Client) -> None:
        """A chosen state leaves the rows that are in it; a row that was given back is not queued but requeued."""
        batch_id = submit(5)
        rows = BatchRow.objects.filter(batch=batch_id)
        BatchProgress.objects.create(batch_id=batch_id, slot=0, nsuccess=1, nfailed=1)
        rows.filter(line=1).update(status=Status.FAILED)
        rows.filter(line=2).update(status=Status.SUCCESS)
        rows.filter(line=3).update(status=Status.IN_PROGRESS, claim=1)
        rows.filter(line=4).update(retry_at=timezone.now() + timedelta(hours=1))
        assert column(admin_client.get(rows_of(batch_id, status=state))) == ([lines] if lines else [])

    @pytest.mark.parametrize("state", ["queued", "requeued", "inprog", "aborted"])
    def test_asks_nothing_that_the_counts_answer(self, state: str, admin_client: Client, ended: UUID) -> None:
        """A finished batch has no queued rows, nor aborted ones if it counts none: no row is read to find that."""
        with CaptureQueriesContext(connection) as captured:
            response = admin_client.get(rows_of(ended, status=state))
        assert "This batch has no such rows." in text(response)
        assert not [query for query in captured if "alya_batchrows" in query["sql"]]

    def test_shows_the_aborted_rows(self, admin_client: Client) -> None:
        """Rows that were aborted can be seen alone."""
        batch_id = submit(2)
        batches.abort(batch_id)
        assert column(admin_client.get(rows_of(batch_id, status="aborted"))) == ["1", "2"]

    def test_filters_keep_the_batch(self, admin_client: Client, ended: UUID) -> None:
        """The filters' links, and the one that chooses all, stay with the batch."""
        found = links(admin_client.get(rows_of(ended, status="failed", q="3")))
        assert found["✓ success 5"] == f"?batch={ended}&status=success"
        assert found["all 10"] == f"?batch={ended}"

    @pytest.mark.rule("ADM-36")
    def test_offers_the_states_with_the_counts_of_the_batch(self, admin_client: Client, ended: UUID) -> None:
        """What has counters shows them, what cannot be is not offered, and the chosen one is marked."""
        response = admin_client.get(rows_of(ended, status="failed"))
        assert "all 10 ✓ success 5 ✕ failed 5 Errors: odd 5" in text(response)
        assert f'<a href="?batch={ended}&amp;status=failed" aria-current="page"' in response.content.decode()

    @pytest.mark.rule("ADM-36")
    def test_offers_the_states_of_an_unfinished_batch(self, admin_client: Client) -> None:
        """Those for which no counter is kept have no figure."""
        batch_id = submit(5)
        BatchProgress.objects.create(batch_id=batch_id, slot=3, nsuccess=2, nfailed=0)
        assert "all 5 ◔ queued ↻ requeued ▶ in progress ✓ success 2 " in text(admin_client.get(rows_of(batch_id)))

    @pytest.mark.rule("ADM-37")
    def test_filters_by_errcode(self, admin_client: Client, registry: Any) -> None:
        """An errcode of the batch leads to the failed rows that have it first."""
        batch_id = mixed(registry, ["closed", "limit", "", "closed", "it's <b>&"])
        found = links(admin_client.get(rows_of(batch_id)))
        assert found["closed 2"] == f"?batch={batch_id}&errcode=closed"
        assert column(admin_client.get(ROWS + found["closed 2"])) == ["1", "4"]
        assert column(admin_client.get(ROWS + found["it's <b>& 1"])) == ["5"]
        response = admin_client.get(rows_of(batch_id, status="success", errcode="limit"))
        assert column(response) == ["2"]
        assert 'errcode=limit" aria-current="page"' in response.content.decode()

    def test_an_unknown_errcode_finds_nothing(self, admin_client: Client, ended: UUID) -> None:
        """What no row has is answered in words."""
        for errcode in ("even", "x" * 1000, "' or 1=1", "😀", "\0"):
            assert "This batch has no such rows." in text(admin_client.get(rows_of(ended, errcode=errcode)))

    def test_leads_from_many_errcodes_to_all(self, admin_client: Client, registry: Any) -> None:
        """The ten most frequent are shown at once; those that are counted together lead nowhere."""
        batch_id = mixed(registry, [f"code_{n:03}" for n in range(215)])
        response = admin_client.get(rows_of(batch_id))
        assert "191 more codes code_010 1" in text(response)
        assert "other 15" in text(response)
        assert not [label for label in links(response) if label.startswith("other")]
        assert links(response)["code_199 1"] == f"?batch={batch_id}&errcode=code_199"

    @pytest.mark.rule("ADM-38")
    @pytest.mark.parametrize("status", ["success", "aborted"])
    def test_looks_a_few_at_a_time_for_what_has_no_index(self, status: str, admin_client: Client) -> None:
        """A page says how far it has looked, and the next one looks on; the way back is the same."""
        batch_id = submit(2_500)
        wanted = [5, 1_400, *range(2_300, 2_500)]
        rows = BatchRow.objects.filter(batch=batch_id)
        rows.exclude(line__in=wanted).update(status=Status.FAILED)
        rows.filter(line__in=wanted).update(status=status)
        end(batch_id, {"nfailed": 2_500 - len(wanted), f"n{status}": len(wanted)})
        address, pages, notes = rows_of(batch_id, status=status), [], []
        while address:
            response = admin_client.get(address)
            pages.append(column(response))
            notes += notes_of(response)
            address = following(response, "Next page")
        expected = [
            ["5"],
            ["1400"],
            [str(line) for line in range(2_300, 2_400)],
            [str(n) for n in range(2_400, 2_500)],
        ]
        assert pages == expected
        assert notes == ["1,000", "2,000"]
        response = admin_client.get(rows_of(batch_id, status=status, before=2_300))
        assert column(response) == ["1400"]
        assert notes_of(response) == ["1,300"]
        assert column(admin_client.get(following(response, "Next page"))) == expected[2]
        response = admin_client.get(following(response, "Previous page"))
        assert (column(response), notes_of(response)) == ([], ["300"])
        response = admin_client.get(following(response, "Previous page"))
        assert (column(response), notes_of(response)) == (["5"], ["1,000"])

    @pytest.mark.rule("ADM-38")
    def test_shows_the_first_of_what_is_in_another_order(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of rows that were given back, those that are due first are shown; the page says that there may be others."""
        monkeypatch.setattr("alya_django.admin.row_filters.LOOKED_AT_MAX", 2)
        batch_id = submit(4)
        for line in range(1, 5):
            due_at = NOON + timedelta(hours=-line)
            BatchRow.objects.filter(batch=batch_id, line=line).update(retry_at=due_at)
        response = admin_client.get(rows_of(batch_id, status="requeued"))
        assert column(response) == ["3", "4"]
        assert "At most 1,000 such rows can be shown: those that come first." in text(response)

    @pytest.mark.rule("ADM-30")
    def test_masks_messages(self, ended: UUID, settings: Any, staff_client: Any) -> None:
        """A first message is a payload as well."""
        settings.ALYA = {"MASK_WITH": f"{__name__}.hide"}
        client = staff_client("view_batchrow")
        assert column(client.get(rows_of(ended)), 2)[:2] == ["•••", "-"]
        settings.ALYA = {"MASK_KEYS": ["vals"]}
        assert column(client.get(rows_of(ended)), 2)[:2] == ["odd (line: •••)", "-"]
        settings.ALYA = {"MASK_KEYS": ["msgid", "errcode"]}
        assert column(client.get(rows_of(ended)), 2)[:2] == ["••• (line: 1)", "-"]

    def test_jumps_to_a_line(self, admin_client: Client) -> None:
        """A search is for a line: the page begins with it, and leads on and back."""
        batch_id = submit(350)
        response = admin_client.get(rows_of(batch_id, q=" 150 "))
        assert column(response) == [str(line) for line in range(150, 250)]
        assert column(admin_client.get(ROWS + links(response)["Previous page"]))[-1] == "149"
        assert column(admin_client.get(ROWS + links(response)["Next page"]))[0] == "250"

    def test_jumps_over_a_gap(self, admin_client: Client) -> None:
        """Where a line is not there, the page begins with the next that is."""
        batch_id = batches.submit("bank", "transfer", [BatchInput(10, {}), BatchInput(20, {})])
        assert column(admin_client.get(rows_of(batch_id, q="11"))) == ["20"]

    @pytest.mark.parametrize("search", ["0", "1", "-7", "-" + "9" * 30])
    def test_jumps_to_the_first_page(self, search: str, admin_client: Client) -> None:
        """The first line, and what comes before it, is the first page: nothing precedes it."""
        response = admin_client.get(rows_of(submit(2), q=search))
        assert column(response) == ["1", "2"]
        assert "Previous page" not in links(response)

    @pytest.mark.parametrize("search", ["3", "9" * 30, "9" * 5000, "one", "1; drop", "½"])
    def test_finds_no_such_line(self, search: str, admin_client: Client) -> None:
        """A line beyond the last, or what is no number, finds nothing and says so."""
        assert "This batch has no such rows." in text(admin_client.get(rows_of(submit(2), q=search)))

    @pytest.mark.parametrize(
        "batch_id", ["nonsense", "\0", "1' or 1=1", "8b6f1c1e-3d52-4c0a-9a55-2f6f7a1f0c11", "9" * 500]
    )
    def test_a_batch_that_is_not_there_is_no_error(self, batch_id: str, admin_client: Client) -> None:
        """A wrong id in the URL is answered in words."""
        submit()
        response = admin_client.get(rows_of(batch_id))
        assert "There is no batch " in text(response)
        assert table(response) == []

    def test_takes_one_batch_of_several(self, admin_client: Client, ended: UUID) -> None:
        """A batch given twice is the last: rows of two have no order by line."""
        other = submit(2)
        assert column(admin_client.get(f"{ROWS}?batch={ended}&batch={other}")) == ["1", "2"]

    @pytest.mark.parametrize("lookup", ["input__n", "batch__app", "line__gte", "result__icontains"])
    def test_takes_no_other_lookup(self, lookup: str, admin_client: Client) -> None:
        """The URL cannot ask for what no index answers."""
        assert admin_client.get(rows_of(submit(), **{lookup: "1"})).status_code == 400

    def test_keeps_to_its_order(self, admin_client: Client) -> None:
        """No column sorts, whatever the URL says."""
        batch_id = submit(3)
        assert column(admin_client.get(rows_of(batch_id, o="-1.2"))) == ["1", "2", "3"]

    def test_asks_a_fixed_number_of_queries(self, admin_client: Client) -> None:
        """Many rows cost what one row costs; nothing counts them, or reads what the list does not show."""
        figures = []
        for count in (1, 150):
            address = rows_of(submit(count), q="1")
            with CaptureQueriesContext(connection) as captured:
                assert len(table(admin_client.get(address))) == min(count, 100)
            figures.append(len(captured))
        assert figures[0] == figures[1] <= QUERIES_MAX
        of_rows = [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]
        assert len(of_rows) == 1
        assert "COUNT(" not in of_rows[0].upper()
        for name in ("input", "result", "output_lines"):
            assert f'"{name}"' not in of_rows[0]

    def test_leads_to_the_pages_of_lines(self, admin_client: Client, ended: UUID) -> None:
        """A line leads to its page, and so does the address that its row had in the admin."""
        assert links(admin_client.get(rows_of(ended, status="failed")))["3"] == line_of(ended, 3)
        row = BatchRow.objects.get(batch=ended, line=3)
        assert admin_client.get(f"{ROWS}{row.pk}/change/").url == line_of(ended, 3)

    @pytest.mark.parametrize("row_id", ["nonsense", "0", "-1", "9" * 30, "9" * 5000, "%00"])
    def test_a_row_that_is_not_there_is_no_error(self, row_id: str, admin_client: Client) -> None:
        """A wrong id leads back to the admin's first page, with words."""
        assert admin_client.get(f"{ROWS}{row_id}/change/").url == "/admin/"

    @pytest.mark.parametrize("path", ["add/", "{}/change/", "{}/delete/"])
    def test_refuses_every_post(self, path: str, admin_client: Client) -> None:
        """Not even a superuser adds, changes or deletes."""
        submit()
        before = BatchRow.objects.values().get()
        response = admin_client.post(ROWS + path.format(before["id"]), {"line": "7", "post": "yes"})
        assert response.status_code == 405
        assert BatchRow.objects.values().get() == before


@pytest.fixture(scope="class")
def large(django_db_setup: None, django_db_blocker: Any) -> Iterator[UUID]:
    """A batch of 200 000 rows in every state but aborted, beside a small one, with fresh statistics."""
    with django_db_blocker.unblock():
        batch_id = batches.submit("bank", "transfer", ({"n": n} for n in range(200_000)))
        submit(100)
        rows = BatchRow.objects.filter(batch=batch_id)
        rows.filter(line__lte=150_000).update(status=Status.SUCCESS)
        failed = {"status": Status.FAILED, "messages": [{"msgid": 0, "errcode": "odd"}]}
        rows.filter(line__range=(10_000, 40_000)).update(**failed)
        rows.filter(line__in=range(20_000, 20_300)).update(messages=[{"msgid": 0, "errcode": "even"}])
        rows.filter(line__range=(150_001, 150_500)).update(status=Status.IN_PROGRESS, claim=1)
        rows.filter(line__range=(150_501, 155_000)).update(retry_at=NOON)
        BatchProgress.objects.create(batch_id=batch_id, slot=0, nsuccess=119_999, nfailed=30_001)
        BatchErrors.objects.create(batch_id=batch_id, counts={"odd": 29_701, "even": 300})
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE alya_batchrows")
        yield batch_id
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE alya_batchrows, alya_batches, alya_batch_progress, alya_batch_errors")


@pytest.mark.slow
class PlanTests:
    """How PostgreSQL finds the rows of a page, in a table of 200 000."""

    @pytest.mark.rule("ADM-36", "ADM-37", "ADM-38")
    @pytest.mark.parametrize(
        "query",
        [
            {},
            {"after": 199_000},
            {"before": 199_000},
            {"before": 50},
            {"q": 32_690},
            *({"status": status} for status in ("queued", "requeued", "inprog", "success", "failed", "aborted")),
            {"status": "failed", "before": 10_150},
            {"status": "success", "after": 9_950},
            {"status": "success", "before": 40_100},
            {"errcode": "even"},
            {"errcode": "odd", "after": 39_000},
            {"errcode": "even", "before": 20_200},
            {"errcode": "never"},
        ],
        ids=str,
    )
    def test_a_page_reads_few_rows(self, query: dict[str, Any], large: UUID, admin_client: Client) -> None:
        """Whatever it shows and wherever it begins: no statement reads the table, nor much more than a page shows."""
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(rows_of(large, **query))
        assert len(captured) <= QUERIES_MAX
        for sql in of_rows(captured):
            assert not is_scan(sql, "alya_batchrows")
            assert rows_read(sql) <= READ_MAX, sql

    @pytest.mark.rule("ADM-39")
    def test_a_line_is_found_by_its_index(self, large: UUID, admin_client: Client) -> None:
        """And so are the failed lines around it, and the ends of a batch that has no such line."""
        for line in (32_690, 1, 200_000, 200_001):
            with CaptureQueriesContext(connection) as captured:
                admin_client.get(line_of(large, line))
            assert len(captured) <= QUERIES_MAX
            for sql in of_rows(captured):
                assert not is_scan(sql, "alya_batchrows")
                # The row, and the batch of its family that it is in.
                assert rows_read(sql) <= 4


def of_rows(captured: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]


def mixed(registry: Any, errcodes: list[str]) -> UUID:
    """Return a batch that has ended, with a row for each errcode that it failed with; none is a success."""

    def process(row: Row) -> None:
        if row.input:
            raise RowFailed(row.input)

    register_batch_processor("bank", "mixed", process)
    batch_id = batches.submit("bank", "mixed", errcodes)
    drain()
    return batch_id


def end(batch_id: UUID, counts: dict[str, int]) -> None:
    """Let a batch have ended, with these counts."""
    every = {"nsuccess": 0, "nfailed": 0, "naborted": 0, **counts}
    Batch.objects.filter(pk=batch_id).update(status=Status.FAILED, done_at=NOON, **every)


def following(response: Any, label: str) -> str:
    """Return where a link of the pager leads; nothing if it is not there."""
    address = links(response).get(label)
    return ROWS + address if address else ""


def notes_of(response: Any) -> list[str]:
    """Return how far a page says that it has looked."""
    return re.findall(r"up to line ([\d,]+)", text(response))


def hide(value: Any, what: str, details: BatchDetails) -> str:
    return "hidden"
