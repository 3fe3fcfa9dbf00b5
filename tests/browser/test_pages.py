"""The pages of batches in a browser, under a strict content security policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from alya_django import Status, batches, register_batch_processor
from alya_django.models import Batch, BatchErrors, BatchProgress, Worker
from alya_django.testing import drain
from tests.admin.pages import BATCHES
from tests.browser.conftest import NARROW, WIDE, Visitor
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

LONG = "settlement-of-a-bank-with-a-very-long-name-that-nobody-would-type-2026-11-23-final-final-2.csv"


def page_of(batch_id: UUID) -> str:
    return f"{BATCHES}{batch_id}/change/"


def add(nrows: int, ended: int, nfailed: int = 0, **values: Any) -> UUID:
    """Add a batch that says to have so many rows, by its counters."""
    now = timezone.now()
    batch_id = batches.submit(
        "bank", "transfer", [{}], input_file=values.pop("input_file", "a.csv"), requested_by="asha"
    )
    values = {"status": Status.IN_PROGRESS, "started_at": now - timedelta(seconds=100), **values}
    Batch.objects.filter(pk=batch_id).update(nrows=nrows, **values)
    BatchProgress.objects.create(batch_id=batch_id, slot=0, nsuccess=ended - nfailed, nfailed=nfailed)
    return batch_id


@pytest.fixture
def many(registry: Any) -> dict[str, UUID]:
    """Batches in every state, of every size."""
    register_batch_processor("bank", "transfer", fail_odd)
    failed = batches.submit("bank", "transfer", [{}] * 10, input_file="november.csv", requested_by="asha")
    drain()
    aborted = batches.submit("bank", "transfer", [{}])
    batches.abort(aborted)
    Worker.objects.create(name="host-a-1", host="host-a", pid=1, version="1", ops=[["B", "bank", "transfer"]])
    running = add(10_000_000, 6_120_440, 1_538, input_file=LONG)
    BatchErrors.objects.create(batch_id=running, counts={"account_closed": 902, "limit": 411, "": 225})
    held = add(1_000_000, 5_001, 5_001, held_at=timezone.now(), hold_reason="5,001 rows failed, 5,000 may.")
    stalled = add(1_000, 0)
    BatchProgress.objects.filter(batch=stalled).update(moved_at=timezone.now() - timedelta(hours=1))
    waiting = batches.submit("bank", "transfer", [{}] * 3, wait=True)
    return {
        "failed": failed,
        "aborted": aborted,
        "running": running,
        "held": held,
        "stalled": stalled,
        "waiting": waiting,
    }


class LiveTests:
    @pytest.mark.rule("ADM-9")
    def test_a_page_moves_to_its_end(self, visit: Callable[..., Visitor]) -> None:
        """Figures, bar and state change without reload; at the end the page says that there is more to see."""
        batch_id = add(200, 20)
        visitor = visit()
        page = visitor.page
        page.goto(page_of(batch_id))
        expect(page.locator("[data-alya-text=share]")).to_have_text("10.0\xa0%")
        BatchProgress.objects.update(nsuccess=100)
        expect(page.locator("[data-alya-text=share]")).to_have_text("50.0\xa0%", timeout=10_000)
        assert page.locator("progress").get_attribute("value") == "100"
        Batch.objects.update(status=Status.SUCCESS, done_at=timezone.now(), nsuccess=200, nfailed=0, naborted=0)
        expect(page.locator("[data-alya-text=state]")).to_have_text("success", timeout=10_000)
        expect(page.get_by_role("status")).to_contain_text("Some batches have ended.")

    @pytest.mark.rule("ADM-9")
    def test_the_list_asks_once_for_all(self, visit: Callable[..., Visitor]) -> None:
        """One request has the figures of all batches that are unfinished, and can be switched off."""
        ids = {str(add(100, 10)) for _ in range(3)}
        visitor = visit()
        page = visitor.page
        with page.expect_request(re.compile("progress/")) as asked:
            page.goto(BATCHES)
        assert set(asked.value.url.partition("ids=")[2].split(",")) == ids
        switch = page.get_by_role("button", name="Live: on")
        switch.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Live: off")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="Live: off")).to_be_visible()

    @pytest.mark.rule("ADM-9")
    def test_says_since_when_nothing_is_heard(self, visit: Callable[..., Visitor]) -> None:
        """A server that does not answer is said, and asked again."""
        visitor = visit()
        page = visitor.page
        page.route(re.compile("progress/"), lambda route: route.fulfill(status=503))
        page.goto(page_of(add(100, 10)))
        expect(page.get_by_role("status")).to_contain_text("No answer since")
        page.unroute(re.compile("progress/"))
        expect(page.get_by_role("status")).to_have_text("", timeout=15_000)
        visitor.complaints.clear()

    @pytest.mark.rule("ADM-6")
    def test_without_javascript_there_is_a_link(self, visit: Callable[..., Visitor]) -> None:
        """The page shows the same, and is refreshed by hand."""
        batch_id = add(100, 10)
        visitor = visit(java_script_enabled=False)
        page = visitor.page
        page.goto(page_of(batch_id))
        expect(page.get_by_role("button", name="Live: on")).to_be_hidden()
        BatchProgress.objects.update(nsuccess=50)
        page.wait_for_timeout(1_100)
        page.get_by_role("link", name="Refresh").click()
        expect(page.locator("[data-alya-text=share]")).to_have_text("50.0\xa0%")


class ActTests:
    @pytest.mark.rule("ADM-3", "ADM-4")
    def test_a_batch_is_aborted_by_keyboard(self, visit: Callable[..., Visitor]) -> None:
        """From the list to the question, the reason and the end, without a mouse."""
        batch_id = batches.submit("bank", "transfer", [{}] * 3, input_file="a.csv")
        visitor = visit("view_batch", "abort_batch")
        page = visitor.page
        page.goto(BATCHES)
        page.get_by_role("link", name=str(batch_id)[:8]).focus()
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Abort…").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("3 rows that have not ended will be aborted")).to_be_visible()
        visitor.check_access()
        page.get_by_label("Reason").focus()
        page.keyboard.type("wrong file")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Aborted 3 rows.")).to_be_visible()
        page.get_by_role("link", name="History").click()
        expect(page.get_by_text("Aborted 3 rows. (wrong file)")).to_be_visible()
        assert Batch.objects.get().status == Status.ABORTED

    def test_several_are_released_from_the_list(self, visit: Callable[..., Visitor]) -> None:
        """Ticked, chosen, asked, confirmed."""
        for _ in range(2):
            batches.submit("bank", "transfer", [{}], wait=True)
        visitor = visit("view_batch", "release_batch")
        page = visitor.page
        page.goto(BATCHES)
        for box in page.locator("tbody input.action-select").all():
            box.check()
        page.get_by_label("Action:").select_option("release_chosen")
        page.get_by_role("button", name="Go", exact=True).click()
        page.get_by_role("button", name="Release").click()
        expect(page.get_by_text("Released 1 row.").first).to_be_visible()
        assert set(Batch.objects.values_list("status", flat=True)) == {Status.QUEUED}


class LookTests:
    @pytest.mark.rule("ADM-6")
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [WIDE, NARROW])
    def test_is_seen_by_everybody(
        self, scheme: str, width: int, many: dict[str, UUID], visit: Callable[..., Visitor]
    ) -> None:
        """Contrast, names and structure satisfy WCAG 2.2 AA, light and dark, wide and narrow."""
        # What takes the pictures adds a style to the page.
        visitor = visit(color_scheme=scheme, bypass_csp=True)
        page = visitor.page
        page.set_viewport_size({"width": width, "height": 900})
        addresses = {"list": BATCHES, **{name: page_of(batch_id) for name, batch_id in many.items()}}
        addresses["abort"] = f"{BATCHES}{many['running']}/abort/"
        addresses["empty"] = f"{BATCHES}?q=nothing"
        for name, address in addresses.items():
            page.goto(address)
            visitor.take_picture(f"{name}-{width}-{scheme}")
            visitor.check_access()
