"""What moves without reload, and what there is without a script."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from alya_django import Status
from alya_django.models import Batch, BatchProgress
from tests.admin.pages import BATCHES, page_of
from tests.browser.conftest import Visitor
from tests.browser.samples import add

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


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
