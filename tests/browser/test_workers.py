"""The page of workers in a browser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

import alya_django
from alya_django import Status, batches
from alya_django.models import BatchRow, Worker
from alya_django.querysets import CLAIMS_PER_WORKER
from tests.admin.pages import WORKERS, page_of
from tests.browser.conftest import Visitor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


class WorkersTests:
    @pytest.mark.rule("ADM-43", "ADM-44", "ADM-45")
    def test_says_who_is_at_what(self, visit: Callable[..., Visitor], registry: Any) -> None:
        """At work, idle and lost, with a way to the batch; and the ops that wait for somebody."""
        batch_id = batches.submit("bank", "transfer", range(3), input_file="november.csv")
        batches.submit("shop", "order", [{}])
        now = timezone.now()
        ops = [["B", "bank", "transfer"]]
        versions = {"at-work": alya_django.__version__, "idle": "0.0.1", "lost": alya_django.__version__}
        for number, (name, version) in enumerate(versions.items(), start=1):
            Worker.objects.create(pk=number, name=name, host="host-a", pid=number, version=version, ops=ops, rate=20)
        Worker.objects.filter(name="lost").update(heartbeat=now - timedelta(minutes=5))
        BatchRow.objects.filter(batch=batch_id).update(
            status=Status.IN_PROGRESS, claim=CLAIMS_PER_WORKER + 1, claimed_at=now, done_by="at-work"
        )
        visitor = visit("view_batch", "view_worker")
        page = visitor.page
        page.goto(WORKERS)
        rows = {name: page.locator("#result_list tbody tr", has_text=name) for name in ("at-work", "idle", "lost")}
        expect(rows["at-work"]).to_contain_text("working")
        expect(rows["at-work"]).to_contain_text("3 rows of november.csv")
        expect(rows["at-work"]).to_contain_text("1,200")
        expect(rows["idle"]).to_contain_text(f"0.0.1, not {alya_django.__version__}")
        expect(rows["lost"]).to_contain_text("5 min")
        expect(page.locator(".alya-unserved")).to_contain_text("shop/order")
        visitor.check_access()
        visitor.check_width()
        visitor.follow(page.get_by_role("link", name="november.csv"))
        assert page.url.endswith(page_of(batch_id))

    def test_says_that_there_is_none(self, visit: Callable[..., Visitor], registry: Any) -> None:
        """And how to start one."""
        visitor = visit("view_worker")
        visitor.page.goto(WORKERS)
        expect(visitor.page.get_by_text("No worker is alive: start one with manage.py alya_worker.")).to_be_visible()
        visitor.check_access()
