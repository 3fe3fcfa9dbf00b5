"""The rows of a batch and the page of a line in a browser, as support staff use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from alya_django import batches, register_batch_processor
from alya_django.testing import drain
from tests.admin.pages import line_of, rows_of
from tests.browser.conftest import Visitor
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


NROWS = 250


@pytest.fixture
def ended(registry: Any) -> UUID:
    """A batch of three pages of rows, of which the odd lines have failed."""
    register_batch_processor("bank", "transfer", fail_odd)
    batch_id = batches.submit("bank", "transfer", [{"amount": n} for n in range(NROWS)], input_file="november.csv")
    drain()
    return batch_id


def lines(page: Page) -> list[int]:
    """Return the lines that a list shows."""
    return [int(text.replace(",", "")) for text in page.locator("#result_list .field-line").all_inner_texts()]


class ListTests:
    @pytest.mark.rule("ADM-36", "ADM-37")
    def test_is_filtered_by_state_and_by_error(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """The tabs say how many there are of each, and lead to them."""
        visitor = visit("view_batch", "view_batchrow")
        page = visitor.page
        page.goto(rows_of(ended))
        visitor.follow(page.get_by_role("link", name="failed 125"))
        assert lines(page)[:3] == [1, 3, 5]
        expect(page.get_by_role("link", name="failed 125")).to_have_attribute("aria-current", "page")
        visitor.check_access()
        visitor.follow(page.get_by_role("link", name="odd 125"))
        assert lines(page)[:3] == [1, 3, 5]
        visitor.follow(page.get_by_role("link", name="success 125"))
        assert lines(page)[:3] == [2, 4, 6]
        visitor.follow(page.get_by_role("link", name="all 250"))
        assert lines(page)[:3] == [1, 2, 3]

    @pytest.mark.rule("ADM-36")
    def test_goes_from_page_to_page(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """On to the last, back by one, and back to the first."""
        visitor = visit("view_batch", "view_batchrow")
        page = visitor.page
        page.goto(rows_of(ended))
        seen = [lines(page)]
        for name in ("Next page", "Next page", "Previous page", "First page"):
            visitor.follow(page.get_by_role("link", name=name))
            seen.append(lines(page))
        first, second, third = list(range(1, 101)), list(range(101, 201)), list(range(201, 251))
        assert seen == [first, second, third, second, first]
        expect(page.get_by_role("link", name="Previous page")).to_have_count(0)

    @pytest.mark.rule("ADM-36")
    def test_jumps_to_a_line(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """A number in the search leads to the rows from there on, and the pages go on from it."""
        visitor = visit("view_batch", "view_batchrow")
        page = visitor.page
        page.goto(rows_of(ended))
        page.locator("#searchbar").fill("120")
        with page.expect_navigation():
            page.locator("#searchbar").press("Enter")
        assert lines(page)[:2] == [120, 121]
        visitor.follow(page.get_by_role("link", name="Next page"))
        assert lines(page) == list(range(220, 251))


class LineTests:
    @pytest.mark.rule("ADM-39", "ADM-40", "ADM-42", "ADM-46")
    def test_a_failed_line_is_found_and_retried(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """From the rows to the line that somebody asks about, to its neighbours, and to what a retry makes of it."""
        visitor = visit("view_batch", "view_batchrow", "retry_batch")
        page = visitor.page
        page.goto(rows_of(ended, status="failed"))
        page.get_by_role("link", name="101", exact=True).click()
        expect(page.get_by_role("heading", name="Line 101")).to_be_visible()
        expect(page.get_by_role("row", name="odd line 101")).to_be_visible()
        visitor.check_access()
        page.get_by_role("link", name="Next failed line").click()
        expect(page.get_by_role("heading", name="Line 103")).to_be_visible()
        page.get_by_role("link", name="Previous failed line").click()
        page.get_by_role("link", name="Retry this line").click()
        expect(page.get_by_text("A child batch with line 101 alone will be submitted")).to_be_visible()
        page.get_by_label("Reason").fill("asked by phone")
        page.get_by_role("button", name="Retry this line").click()
        (child,) = batches.children(ended)
        expect(page.get_by_text("queued in")).to_be_visible()
        expect(page.get_by_role("link", name="Retry this line")).to_have_count(0)
        drain()
        page.reload()
        expect(page.get_by_text("failed in")).to_be_visible()
        visitor.follow(page.get_by_role("link", name=str(child)))
        assert page.url.endswith(line_of(child, 101))
        expect(page.get_by_text("It repeats line 101")).to_be_visible()

    @pytest.mark.rule("ADM-39", "ADM-41")
    def test_a_line_is_found_by_its_number(self, ended: UUID, visit: Callable[..., Visitor]) -> None:
        """Also one that is not there: then the page says which there are."""
        visitor = visit("view_batch", "view_batchrow")
        page = visitor.page
        page.goto(line_of(ended))
        page.get_by_label("Line", exact=True).fill("250")
        page.get_by_role("button", name="Go").click()
        expect(page.get_by_role("heading", name="Line 250")).to_be_visible()
        page.get_by_label("Line", exact=True).fill("251")
        page.get_by_role("button", name="Go").click()
        expect(page.get_by_text("Its lines are from 1 to 250.")).to_be_visible()
        visitor.check_access()
        # A page that is not found is a complaint of the browser's.
        visitor.complaints.clear()
