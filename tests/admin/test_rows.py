from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import BatchInput, Status, batches, slow_queries
from alya_django.models import BatchRow
from tests.admin.pages import BATCHES, ROWS, column, links, rows_of, table, text

pytestmark = pytest.mark.django_db

QUERIES_MAX = 12


def submit(count: int = 1) -> UUID:
    return batches.submit("bank", "transfer", ({"n": n} for n in range(count)))


def page_of(batch_id: UUID, line: int = 1) -> str:
    return f"{ROWS}{BatchRow.objects.get(batch=batch_id, line=line).pk}/change/"


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
        done_at = timezone.localtime(BatchRow.objects.get(batch=ended, line=1).done_at)
        rows = table(admin_client.get(rows_of(ended)))
        done_by = rows[0][4]
        assert len(rows) == 10
        assert rows[0] == ["1", "failed", "odd (line: 1)", "1", done_by, f"{done_at:%Y-%m-%d %H:%M:%S}"]
        assert rows[1][:4] == ["2", "success", "-", "1"]

    def test_says_of_which_batch(self, admin_client: Client, ended: UUID) -> None:
        """The page names the batch, says how far it has come and leads to it."""
        response = admin_client.get(rows_of(ended))
        assert f"bank/transfer {ended} 100.0 %, 10 of 10 rows, 5 failed" in text(response)
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
        """The filter's links, and the one that clears them, stay with the batch."""
        found = links(admin_client.get(rows_of(ended, status="failed")))
        assert found["success"] == f"?batch={ended}&status=success"
        assert found["✖ Clear all filters"] == f"?batch={ended}"

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

    @pytest.mark.parametrize("batch_id", ["nonsense", "\0", "1' or 1=1", str(uuid4()), "9" * 500])
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


@pytest.mark.sqlite
class RowPageTests:
    def test_shows_all_that_is_kept(self, admin_client: Client, ended: UUID) -> None:
        """Input, result, messages, attempts and worker of a row are on its page."""
        row = BatchRow.objects.get(batch=ended, line=3)
        shown = text(admin_client.get(page_of(ended, 3)))
        for words in (str(ended), "Line: 3", "State: failed", '"amount": 2', '"errcode": "odd"', str(row.done_by)):
            assert words in shown

    def test_leads_to_its_neighbours(self, admin_client: Client, ended: UUID) -> None:
        """The rows that follow are one click away, and so is the batch."""
        found = links(admin_client.get(page_of(ended, 4)))
        assert column(admin_client.get(found["Rows from here"]))[0] == "4"
        assert found[str(ended)] == f"{BATCHES}{ended}/change/"

    def test_says_that_a_row_is_requeued(self, admin_client: Client) -> None:
        """A row that was given back says when it may be claimed again."""
        batch_id = submit()
        retry_at = timezone.now() + timedelta(hours=1)
        BatchRow.objects.update(retry_at=retry_at)
        shown = text(admin_client.get(page_of(batch_id)))
        assert "State: requeued" in shown
        assert f"Retry at: {timezone.localtime(retry_at):%Y-%m-%d %H:%M:%S}" in shown

    def test_escapes_what_others_wrote(self, admin_client: Client) -> None:
        """Input is text, not markup, and keeps its digits and letters."""
        batch_id = batches.submit("bank", "transfer", [{"account": 2**70, "</textarea><script>": "Zürich"}])
        response = admin_client.get(page_of(batch_id))
        assert "</textarea><script>" not in response.content.decode()
        assert f'"account": {2**70}, "</textarea><script>": "Zürich"' in text(response)

    def test_cuts_long_json(self, admin_client: Client) -> None:
        """2,048 bytes are shown, cut between letters, and the page says of how many."""
        batch_id = batches.submit("bank", "transfer", ["ü" * 5000])
        shown = text(admin_client.get(page_of(batch_id)))
        assert "ü" * 1023 in shown
        assert "ü" * 1024 not in shown
        assert "The first 2,048 of 10,002 bytes." in shown

    def test_shows_deep_json(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """What nests deeper than can be indented is shown in one line."""
        dumps = json.dumps

        def shallow(value: Any, *, indent: int | None = None, **options: Any) -> str:
            if indent:
                raise RecursionError
            return dumps(value, **options)

        batch_id = batches.submit("bank", "transfer", [[[1]]])
        monkeypatch.setattr("alya_django.admin.words.json.dumps", shallow)
        assert "[[1]]" in text(admin_client.get(page_of(batch_id)))

    @pytest.mark.parametrize("row_id", ["nonsense", "0", "-1", "9" * 30, "9" * 5000, "%00"])
    def test_a_row_that_is_not_there_is_no_error(self, row_id: str, admin_client: Client) -> None:
        """A wrong id leads back to the admin's first page, with words."""
        assert admin_client.get(f"{ROWS}{row_id}/change/").status_code == 302

    @pytest.mark.parametrize("path", ["add/", "{}/change/", "{}/delete/"])
    def test_refuses_every_post(self, path: str, admin_client: Client) -> None:
        """Not even a superuser adds, changes or deletes."""
        submit()
        before = BatchRow.objects.values().get()
        response = admin_client.post(ROWS + path.format(before["id"]), {"line": "7", "post": "yes"})
        assert response.status_code == 403
        assert BatchRow.objects.values().get() == before


class PlanTests:
    """How PostgreSQL finds the rows of a page."""

    @pytest.fixture
    def large(self) -> UUID:
        """A batch of 50,000 rows in every state but aborted, beside a small one, with fresh statistics."""
        batch_id = batches.submit("bank", "transfer", ({"n": n} for n in range(50_000)))
        submit(100)
        rows = BatchRow.objects.filter(batch=batch_id)
        rows.filter(line__lte=30_000).update(status=Status.SUCCESS)
        rows.filter(line__range=(10_000, 10_200)).update(status=Status.FAILED)
        rows.filter(line__range=(30_001, 30_500)).update(status=Status.IN_PROGRESS, claim=1)
        rows.filter(line__range=(30_501, 30_520)).update(retry_at=timezone.now())
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE alya_batchrows")
        return batch_id

    @pytest.mark.parametrize(
        "query",
        [
            {},
            {"after": 49_000},
            {"before": 49_000},
            {"before": 50},
            {"q": 32_690},
            *({"status": status} for status in ("queued", "requeued", "inprog", "success", "failed", "aborted")),
            {"status": "failed", "before": 10_150},
        ],
        ids=str,
    )
    def test_no_list_scans_the_table(self, query: dict[str, Any], large: UUID, admin_client: Client) -> None:
        """A page of rows is found by an index, whatever it shows."""
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(rows_of(large, **query))
        for sql in self.of_rows(captured):
            assert "Seq Scan on alya_batchrows" not in self.plan(sql)

    def test_no_page_scans_the_table(self, large: UUID, admin_client: Client) -> None:
        """A batch's page asks nothing of the rows, a row's page asks by its key."""
        address = page_of(large, 32_690)
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(f"{BATCHES}{large}/change/")
            assert not self.of_rows(captured)
            admin_client.get(address)
        (sql,) = self.of_rows(captured)
        assert "Seq Scan on alya_batchrows" not in self.plan(sql)

    @pytest.mark.parametrize("status", ["queued", "failed"])
    def test_states_are_found_by_their_own_index(self, status: str, large: UUID, admin_client: Client) -> None:
        """Rows of a state that has an index are not looked for among those that have ended."""
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(rows_of(large, status=status))
        (sql,) = self.of_rows(captured)
        assert f"alya_row_{status}" in self.plan(sql)

    def of_rows(self, captured: CaptureQueriesContext) -> list[str]:
        return [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]

    def plan(self, sql: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {sql}")
            return "\n".join(line for (line,) in cursor.fetchall())
