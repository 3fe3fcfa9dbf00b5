from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import alya_django
from alya_django import batches, slow_queries
from alya_django.models import Batch, BatchRow, Worker
from alya_django.querysets import CLAIMS_PER_WORKER
from alya_django.status import Status
from tests.admin.pages import BATCHES, WORKERS, column, links, table, text
from tests.db.test_plans import is_scan

pytestmark = pytest.mark.django_db

QUERIES_MAX = 12
NAME, STATE, HOLDS, SPEED, BEAT, RELEASE, OPS = range(7)


def add_worker(number: int = 4711, **fields: Any) -> Worker:
    return Worker.objects.create(
        **{
            "pk": number,
            "name": f"host-a-{number}-9f3c",
            "host": "host-a",
            "pid": number,
            "version": alya_django.__version__,
            "ops": [["B", "bank", "transfer"], ["Q", "bank", "report"], ["Q", "bank", "transfer"]],
            "rate": 140.34,
            **fields,
        }
    )


def give(number: int, rows: int = 3, app: str = "bank", **fields: Any) -> Batch:
    """Put rows of a new batch into the hands of a worker."""
    batch = Batch.objects.get(pk=batches.submit(app, "transfer", range(rows), **fields))
    since = timezone.now() - timedelta(minutes=2)
    claim = number * CLAIMS_PER_WORKER + 7
    BatchRow.objects.filter(batch=batch).update(status=Status.IN_PROGRESS, claim=claim, claimed_at=since)
    return batch


def silent() -> dict[str, Any]:
    return {"heartbeat": "2000-01-01T00:00Z"}


def only_bank(request: Any) -> list[str]:
    return ["bank"]


@pytest.mark.sqlite
class WorkerListTests:
    @pytest.mark.rule("ADM-43")
    def test_shows_the_workers(self, admin_client: Client) -> None:
        """A worker is one line: its state, what it holds, its pace, its last heartbeat, its release and its ops."""
        add_worker()
        (row,) = table(admin_client.get(WORKERS))
        assert [row[NAME], row[STATE], row[HOLDS], row[SPEED]] == ["host-a-4711-9f3c", "○ idle", "-", "8,420"]
        assert row[BEAT].endswith(" s ago")
        assert row[RELEASE:OPS] == [alya_django.__version__]
        assert row[OPS:] == ["bank/report, bank/transfer"]

    @pytest.mark.rule("ADM-43")
    @pytest.mark.parametrize(
        ("fields", "is_at_work", "state"),
        [
            ({}, False, "○ idle"),
            ({}, True, "▶ working"),
            ({"is_stopping": True}, True, "◼ stopping"),
            ({"is_stopping": True}, False, "◼ stopping"),
            ({**silent(), "is_stopping": True}, True, "! lost"),
            (silent(), False, "! lost"),
        ],
        ids=str,
    )
    def test_says_what_a_worker_is_at(
        self, fields: dict[str, Any], is_at_work: bool, state: str, admin_client: Client
    ) -> None:
        """Who has fallen silent is lost; else who is to stop is stopping; else who has rows in hand is working."""
        worker = add_worker(**fields)
        if is_at_work:
            give(worker.pk)
        assert column(admin_client.get(WORKERS), STATE) == [state]

    @pytest.mark.rule("ADM-43")
    def test_says_what_each_has_in_hand(self, admin_client: Client) -> None:
        """Of which batch, how many rows and for how long; another worker's rows are that one's."""
        for number in (3, 4, 5):
            add_worker(number)
        named, unnamed = give(3, rows=3, input_file="a <b>.csv"), give(5, rows=1)
        give(77)
        response = admin_client.get(WORKERS)
        first, second, third = column(response, HOLDS)
        assert first.startswith("3 rows of a <b>.csv , for 2 min ")
        assert second == "-"
        assert third.startswith("1 row of bank/transfer , for 2 min ")
        found = links(response)
        assert found["a <b>.csv"] == f"{BATCHES}{named.pk}/change/"
        assert found["bank/transfer"] == f"{BATCHES}{unnamed.pk}/change/"

    def test_links_to_batches_only_those_who_may_see_them(self, staff_client: Any) -> None:
        """Whoever may see workers alone is not led to a page that refuses."""
        give(add_worker().pk)
        assert "bank/transfer" not in links(staff_client("view_worker").get(WORKERS))

    @pytest.mark.rule("ADM-2")
    def test_names_nothing_of_other_apps(self, admin_client: Client, settings: Any) -> None:
        """Who does not see an app sees neither its batches nor its ops, only that a worker is busy."""
        settings.ALYA = {"ADMIN_SCOPE": f"{__name__}.only_bank"}
        worker = add_worker(ops=[["B", "shop", "order"]])
        give(worker.pk, app="shop", input_file="orders.csv")
        shown = text(admin_client.get(WORKERS))
        assert "3 rows of another app, for 2 min " in shown
        assert "shop" not in shown
        assert "orders.csv" not in shown
        assert "No worker knows" not in shown

    @pytest.mark.rule("ADM-44")
    def test_points_out_another_release(self, admin_client: Client) -> None:
        """During a deployment one sees which workers are still of the old release."""
        add_worker(version="0.0.9")
        assert column(admin_client.get(WORKERS), RELEASE) == [f"! 0.0.9, not {alya_django.__version__}"]

    def test_says_that_there_are_none(self, admin_client: Client) -> None:
        """An empty list says what to do."""
        assert "No worker is alive: start one with manage.py alya_worker." in text(admin_client.get(WORKERS))

    def test_shows_one(self, admin_client: Client) -> None:
        """A worker's page shows the same."""
        worker = add_worker()
        give(worker.pk)
        shown = text(admin_client.get(f"{WORKERS}{worker.pk}/change/"))
        assert "State: ▶ working" in shown
        assert f"Started: {timezone.localtime(worker.started):%Y-%m-%d %H:%M:%S}" in shown
        assert "3 rows of bank/transfer , for 2 min " in shown
        assert admin_client.get(f"{WORKERS}7/change/").status_code == 302

    @pytest.mark.parametrize("path", ["add/", "{}/change/", "{}/delete/"])
    def test_refuses_every_post(self, path: str, admin_client: Client) -> None:
        """Not even a superuser adds, changes or deletes."""
        worker = add_worker()
        assert admin_client.post(WORKERS + path.format(worker.pk), {"post": "yes"}).status_code == 405
        assert Worker.objects.get() == worker

    def test_asks_few_queries(self, staff_client: Any) -> None:
        """However many workers there are."""
        client = staff_client("view_worker", "view_batch")
        figures = []
        for numbers in (range(1, 2), range(2, 26)):
            for number in numbers:
                give(add_worker(number).pk)
            with CaptureQueriesContext(connection) as captured:
                client.get(WORKERS)
            figures.append(len(captured))
        assert figures[0] == figures[1] <= QUERIES_MAX


@pytest.mark.sqlite
class UnservedTests:
    @pytest.mark.rule("ADM-45")
    def test_names_the_ops_that_no_worker_knows(self, admin_client: Client) -> None:
        """With how many batches wait for one, and since when; what is served, held or has ended is none of them."""
        add_worker()
        add_worker(5, ops=[["B", "shop", "order"]], **silent())
        since = timezone.now() - timedelta(days=1)
        for _ in range(2):
            batch_id = batches.submit("shop", "order", [1])
        Batch.objects.filter(pk=batch_id).update(requested_at=since)
        slow_queries.submit("shop", "report", {})
        batches.submit("bank", "transfer", [1])
        batches.abort(batches.submit("shop", "ended", [1]))
        Batch.objects.filter(pk=batches.submit("shop", "held", [1])).update(held_at=since)
        batches.submit("shop", "waits", [1], wait=True)
        shown = text(admin_client.get(WORKERS))
        when = f"{timezone.localtime(since):%Y-%m-%d %H:%M:%S}"
        assert "No worker knows these ops op kind waiting since" in shown
        assert f"! shop/order batch 2 {when} ! shop/report slow query 1" in shown
        for op in ("bank/transfer batch", "shop/ended", "shop/held", "shop/waits"):
            assert op not in shown

    @pytest.mark.rule("ADM-45")
    def test_looks_at_a_thousand_batches(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of more it says how many there are at least."""
        monkeypatch.setattr("alya_django.admin.workers.WAITING_MAX", 3)
        for _ in range(4):
            batches.submit("shop", "order", [1])
        assert "! shop/order batch 3 or more" in text(admin_client.get(WORKERS))

    def test_says_nothing_where_all_is_served(self, admin_client: Client) -> None:
        """Nothing waits, nothing is said."""
        batches.submit("bank", "transfer", [1])
        add_worker()
        assert "No worker knows" not in text(admin_client.get(WORKERS))


@pytest.fixture(scope="class")
def large(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A batch of 200 000 rows, of which two workers have a few in hand."""
    with django_db_blocker.unblock():
        batch_id = batches.submit("bank", "transfer", range(200_000))
        rows = BatchRow.objects.filter(batch=batch_id)
        for number in (1, 2):
            add_worker(number)
            in_hand = rows.filter(line__range=(number * 1_000, number * 1_000 + 499))
            in_hand.update(status=Status.IN_PROGRESS, claim=number * CLAIMS_PER_WORKER, claimed_at=timezone.now())
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE alya_batchrows")
        yield
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE alya_batchrows, alya_batches, alya_workers")


@pytest.mark.slow
class PlanTests:
    @pytest.mark.rule("ADM-43")
    def test_reads_no_rows_but_those_in_hand(self, large: None, admin_client: Client) -> None:
        """Whatever else is in the table."""
        with CaptureQueriesContext(connection) as captured:
            assert len(table(admin_client.get(WORKERS))) == 2
        (sql,) = [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]
        assert not is_scan(sql, "alya_batchrows")
