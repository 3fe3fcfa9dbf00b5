from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import Status, batches, register_batch_processor
from alya_django.admin import report
from alya_django.models import Batch, BatchErrors, BatchProgress, BatchRow, Worker
from alya_django.testing import drain
from tests.admin.pages import BATCHES, links, rows_of, text
from tests.processors import Recording

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

QUERIES_MAX = 12


def page(batch_id: UUID) -> str:
    return f"{BATCHES}{batch_id}/change/"


def change(batch_id: UUID, **values: Any) -> None:
    Batch.objects.filter(pk=batch_id).update(**values)


@pytest.fixture
def running() -> UUID:
    """A batch of 10,000 rows that has run for 100 seconds and is half done, with a live worker."""
    now = timezone.now()
    batch_id = batches.submit("bank", "transfer", range(10), requested_by="asha", input_file="a.csv")
    change(batch_id, status=Status.IN_PROGRESS, nrows=10_000, started_at=now - timedelta(seconds=100))
    BatchProgress.objects.create(batch_id=batch_id, slot=1, nsuccess=4_990, nfailed=10, nput_off=-2)
    BatchProgress.objects.create(batch_id=batch_id, slot=2, nput_off=5)
    Worker.objects.create(pk=7, name="host-a-1", host="host-a", pid=1, version="1", ops=[["B", "bank", "transfer"]])
    return batch_id


class ReportTests:
    @pytest.mark.rule("ADM-8", "LAT-6")
    def test_says_how_it_goes(self, running: UUID, admin_client: Client) -> None:
        """How far, how many of each, how fast and how long yet."""
        shown = text(admin_client.get(page(running)))
        assert "▶ in progress 50.0 % 5,000 of 10,000 rows" in shown
        assert "success 4,990 failed 10 aborted 0 not ended 5,000 of these put off 3" in shown
        assert "50 rows/s" in shown
        assert "about 1 to 2 min left" in shown

    def test_tells_what_happened_when(self, running: UUID, admin_client: Client) -> None:
        """Submitted by whom, started, held, ended after how long, marked done; in the order of time."""
        began = timezone.now() - timedelta(hours=5)
        hours = [began + timedelta(hours=n) for n in range(5)]
        times = [f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}" for at in hours]
        change(
            running,
            requested_at=hours[0],
            started_at=hours[1],
            held_at=hours[2],
            done_at=hours[3],
            marked_done_at=hours[4],
            status=Status.FAILED,
            nsuccess=9_990,
            nfailed=10,
            naborted=0,
        )
        said = ["submitted by asha", "started", "held", "failed after 2 h 0 min", "marked done"]
        expected = " ".join(f"{at} {what}" for at, what in zip(times, said, strict=True))
        assert f"Timeline {expected}" in text(admin_client.get(page(running)))

    def test_says_how_a_batch_ended_that_never_began(self, admin_client: Client) -> None:
        """Without a beginning it took no time."""
        batch_id = batches.submit("bank", "transfer", [{}], wait=True)
        batches.abort(batch_id)
        assert "submitted" in text(admin_client.get(page(batch_id)))
        assert "aborted after" not in text(admin_client.get(page(batch_id)))

    @pytest.mark.rule("ADM-7")
    def test_groups_failures_by_errcode(self, running: UUID, admin_client: Client) -> None:
        """As the workers counted them, the most frequent first; what they did not keep apart comes last."""
        BatchErrors.objects.create(batch_id=running, counts={"limit": 411, "": 1_225, "closed": 902, "<b>": 411})
        response = admin_client.get(page(running))
        assert "Failed rows by errcode closed 902 <b> 411 limit 411 all others 1,225" in text(response)
        assert links(response)["<b>"] == rows_of(running, errcode="<b>")

    def test_says_who_works_on_it(self, running: UUID, admin_client: Client) -> None:
        """How many rows each worker has in hand, and for how long."""
        for lines, worker, ago in (((1, 3), "host-a-1", 95), ((4, 4), "host-b-4", 3)):
            rows = BatchRow.objects.filter(batch=running, line__range=lines)
            claimed_at = timezone.now() - timedelta(seconds=ago)
            rows.update(status=Status.IN_PROGRESS, claim=ago, done_by=worker, claimed_at=claimed_at)
        shown = text(admin_client.get(page(running)))
        assert "Workers on this batch worker rows in hand for host-a-1 3 1 min 35 s host-b-4 1 3 s" in shown

    def test_counts_no_more_rows_in_hand_than_fit_a_page(
        self, running: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thousand are looked at, and the page says that there are more."""
        monkeypatch.setattr(report, "CLAIMED_MAX", 2)
        BatchRow.objects.filter(batch=running, line__lte=3).update(status=Status.IN_PROGRESS, claim=1)
        shown = text(admin_client.get(page(running)))
        assert "worker rows in hand for - 2 0 s There are more" in shown

    @pytest.mark.rule("ADM-8")
    def test_says_that_it_is_stalled(self, running: UUID, admin_client: Client) -> None:
        """And for how long no row has ended."""
        BatchProgress.objects.update(moved_at=timezone.now() - timedelta(seconds=95))
        shown = text(admin_client.get(page(running)))
        assert "! in progress, stalled" in shown
        assert "No row has ended for 1 min 35 s." in shown

    def test_says_that_totals_do_not_agree(self, running: UUID, admin_client: Client) -> None:
        """What the file declares and what came of it."""
        change(running, totals_mismatch="amount: 5 declared, 7 found.")
        assert "Its totals do not agree: amount: 5 declared, 7 found." in text(admin_client.get(page(running)))

    @pytest.mark.rule("ADM-8")
    def test_says_that_nobody_serves_it(self, running: UUID, admin_client: Client) -> None:
        """A pending batch that no live worker can process; one that is held or has ended needs none."""
        warning = "No live worker serves bank / transfer: start one that does."
        assert warning not in text(admin_client.get(page(running)))
        Worker.objects.update(heartbeat=timezone.now() - timedelta(hours=1))
        assert warning in text(admin_client.get(page(running)))
        change(running, held_at=timezone.now())
        assert warning not in text(admin_client.get(page(running)))

    def test_shows_what_mark_done_raised(self, admin_client: Client, registry: Any) -> None:
        """What went wrong at the end is said at the top."""

        class Sulking(Recording):
            def mark_done(self, details: Any) -> None:
                raise ValueError("no mail <today>")

        register_batch_processor("bank", "transfer", Sulking)
        batch_id = batches.submit("bank", "transfer", [{}])
        drain(raise_errors=False)
        assert "Its mark_done failed: ValueError: no mail <today>" in text(admin_client.get(page(batch_id)))

    def test_leads_to_parent_and_children(
        self, ended: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A retry and what it repeats lead to each other; of many children the latest are named."""
        child = batches.retry(ended)
        assert links(admin_client.get(page(child)))[str(ended)] == page(ended)
        assert links(admin_client.get(page(ended)))[str(child)] == page(child)
        monkeypatch.setattr(report, "CHILDREN_MAX", 0)
        assert "There are more." in text(admin_client.get(page(ended)))

    def test_finds_a_line(self, ended: UUID, admin_client: Client) -> None:
        """A form leads to the rows, from the line on; not for those who may not see rows."""
        content = admin_client.get(page(ended)).content.decode()
        address = f"{BATCHES}{ended}/line/"
        assert f'<form class="alya-inside" method="get" action="{address}">' in content
        assert admin_client.get(address, {"line": "3"})["Location"] == f"{address}3/"

    def test_leads_to_its_rows_and_its_history(self, ended: UUID, admin_client: Client) -> None:
        """What else there is of the batch is one click away."""
        found = links(admin_client.get(page(ended)))
        assert found["Rows"] == rows_of(ended)
        assert found["History"] == f"{BATCHES}{ended}/history/"

    @pytest.mark.rule("ADM-7")
    def test_asks_a_fixed_number_of_queries(self, running: UUID, staff_client: Any, registry: Any) -> None:
        """However many rows, workers, errors and children there are."""
        client = staff_client("view_batch", "view_batchrow", "abort_batch", "download_output")
        with CaptureQueriesContext(connection) as captured:
            client.get(page(running))
        assert len(captured) <= QUERIES_MAX

    @pytest.mark.rule("ADM-6")
    def test_is_whole_without_a_script(self, running: UUID, admin_client: Client) -> None:
        """All acts are links and forms; the switch that needs the script is hidden without it."""
        content = admin_client.get(page(running)).content.decode()
        assert '<button type="button" hidden aria-pressed="true">' in content
        assert 'alya_django/progress.js" type="module"></script>' in content
