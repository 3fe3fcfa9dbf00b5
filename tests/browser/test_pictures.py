"""The pictures of README and documentation: ``make pictures`` takes them, an ordinary run only looks at the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from alya_django import ErrorMessage, Row, RowFailed, RowResult, Status, batches, register_batch_processor
from alya_django.models import BatchErrors, BatchRow
from alya_django.querysets import CLAIMS_PER_WORKER
from alya_django.testing import drain
from tests.admin.pages import BATCHES, WORKERS, line_of, page_of
from tests.browser.conftest import Visitor
from tests.browser.samples import add, add_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
BYTES_MAX = 150_000
HEIGHT = 860
ALSO_DARK = {"list", "batch"}


def transfer(row: Row) -> RowResult:
    """Post all but every fourth row."""
    if row.line % 4 == 3:
        raise RowFailed(ErrorMessage("account_closed", "creditor", ("DE02 5001 0517 5407 3249 31",)))
    return RowResult.success({"posted": True}, output_lines={"posted.csv": f"{row.line}"})


@pytest.fixture
def bank(registry: Any, folder: Path) -> dict[str, UUID]:
    """A day at a bank: files that have come through, one that has not, and one under way, with two workers at it."""
    register_batch_processor("bank", "transfer", transfer)
    payments = [{"amount": f"{n * 7 % 900}.50", "creditor": "DE02 5001 0517 5407 3249 31"} for n in range(240)]
    done = batches.submit("bank", "transfer", payments, input_file="payments-2026-11-23.csv", requested_by="asha")
    drain()
    child = batches.retry(done)
    drain()
    batches.submit("bank", "statement", range(9), wait=True, input_file="statements-november.csv", requested_by="luca")
    workers = add_worker("host-a-4711-5e0c91"), add_worker("host-b-815-77d2aa")
    running = add(1_000_000, 612_044, 1_538, input_file="payroll-2026-11.csv", requested_by="luca")
    BatchErrors.objects.create(batch_id=running, counts={"account_closed": 902, "limit": 411, "": 225})
    for number, worker in enumerate(workers, start=1):
        in_hand = {
            "status": Status.IN_PROGRESS,
            "claim": worker.pk * CLAIMS_PER_WORKER + 1,
            "claimed_at": timezone.now() - timedelta(seconds=number),
            "done_by": worker.name,
        }
        lines = range(number * 1_000, number * 1_000 + 400)
        BatchRow.objects.bulk_create(BatchRow(batch_id=running, line=line, input={}, **in_hand) for line in lines)
    return {"done": done, "child": child, "running": running}


class PictureTests:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_the_pages_are_as_the_documentation_shows_them(
        self, scheme: str, bank: dict[str, UUID], visit: Callable[..., Visitor]
    ) -> None:
        """The list, a batch under way, a line that has failed, and the workers."""
        visitor = visit(color_scheme=scheme, viewport={"width": 1280, "height": HEIGHT})
        page = visitor.page
        for name, address, words in (
            ("list", BATCHES, "payroll-2026-11.csv"),
            ("batch", page_of(bank["running"]), "612,044 of 1,000,000 rows"),
            ("line", line_of(bank["done"], 3), "account_closed"),
            ("workers", WORKERS, "400 rows of payroll-2026-11.csv"),
        ):
            page.goto(address)
            expect(page.get_by_text(words).first).to_be_visible()
            visitor.check_access()
            if scheme == "light" or name in ALSO_DARK:
                visitor.take_picture(f"{name}-{scheme}", whole=False)

    def test_every_picture_is_shown_and_small(self) -> None:
        """What is in the folder a page refers to, what a page refers to is there, and none is large."""
        shown = {name for page in PAGES for name in re.findall(r"images/([\w-]+\.png)", page.read_text())}
        assert {path.name for path in IMAGES.iterdir()} == shown
        assert [path.name for path in IMAGES.iterdir() if path.stat().st_size > BYTES_MAX] == []
