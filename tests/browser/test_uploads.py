"""Uploading a file in a browser, under a strict content security policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from playwright.sync_api import expect

from alya_django import BatchInput, FaultyLine, Status, batches, register_batch_processor, register_file_checker
from alya_django.intake import process, read_csv, uploads
from alya_django.models import Batch, BatchFile
from alya_django.testing import drain
from tests.admin.pages import BATCHES
from tests.browser.conftest import NARROW, WIDE, Visitor
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.usefixtures("folder")]

UPLOAD = f"{BATCHES}upload/"
LONG = "settlement-of-a-bank-with-a-very-long-name-that-nobody-would-type-2026-11-23-final-final-2.csv"
HEADER = "debtor,creditor,amount,text\n"
LINE = "DE02 1203 0000 0000 2020 51,DE02 5001 0517 5407 3249 31,{},Invoice 2026-11-{:04} of the works in the yard\n"


def check(file: Any, file_name: str, context: Any) -> Iterator[BatchInput | FaultyLine]:
    for row in read_csv(file):
        if isinstance(row, BatchInput) and row.input["amount"] == "x":
            row = FaultyLine(row.line, "'x' is no amount such as 12.34")
        yield row


def content(nrows: int = 30, faulty: int = 3) -> str:
    lines = (
        LINE.format("x" if number % 10 == 7 and number // 10 < faulty else "12.50", number) for number in range(nrows)
    )
    return HEADER + "".join(lines)


@pytest.fixture(autouse=True)
def _registered(registry: Any) -> None:
    """Two types of files that may be uploaded, and who works on them."""
    uploads.register()
    register_batch_processor("bank", "transfer", echo)
    register_file_checker(
        "payments",
        check,
        app="bank",
        op="transfer",
        upload=True,
        label="Payments",
        help_text="A CSV file with the columns debtor, creditor, amount and text; amounts such as 12.34.",
    )
    register_file_checker("fees", check, app="bank", op="fees", upload=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 30 lines, three of them faulty."""
    path = tmp_path / "november.csv"
    path.write_text(content())
    return path


def choose(page: Any, path: Path) -> None:
    """Choose a file on the first page, and upload it."""
    page.goto(BATCHES)
    page.get_by_role("link", name="Upload a file").click()
    page.get_by_label("Payments").check()
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Upload and look at it").click()
    expect(page.get_by_role("heading", name=path.name)).to_be_visible()


class StoryTests:
    @pytest.mark.rule("ADM-47", "ADM-49", "ADM-51", "ADM-54")
    def test_a_file_becomes_a_batch_that_ends(self, file: Path, visit: Callable[..., Visitor]) -> None:
        """Chosen, looked at, confirmed; it is loaded as one looks, waits, is released, and ends."""
        visitor = visit()
        page = visitor.page
        choose(page, file)
        expect(page.get_by_text("The whole file was looked at. Found: 27 rows, 3 faulty lines.")).to_be_visible()
        expect(page.get_by_text("'x' is no amount such as 12.34")).to_have_count(3)
        visitor.check_access()
        page.get_by_label("Reason").fill("salaries")
        page.get_by_role("button", name="Confirm").click()
        expect(page.locator("[data-alya-text=state]")).to_have_text("waiting for a worker")
        Batch.objects.update(status=Status.IN_PROGRESS)
        cache.set(f"ALYA_{{{BatchFile.objects.get().pk}}}_LOADED", file.stat().st_size // 2)
        expect(page.locator("[data-alya-text=state]")).to_have_text("loading", timeout=10_000)
        expect(page.locator("[data-alya-text=share]")).to_have_text("50.0\xa0%", timeout=10_000)
        assert page.locator("progress").get_attribute("value") == str(file.stat().st_size // 2)
        visitor.check_access()
        Batch.objects.update(status=Status.QUEUED)
        drain()
        # The page is loaded anew by itself.
        expect(page.get_by_text("It has become a batch of 27 rows. 3 faulty lines were left out.")).to_be_visible(
            timeout=10_000
        )
        visitor.check_access()
        page.get_by_role("link", name="Go to the batch").click()
        expect(page.locator("[data-alya-text=state]")).to_have_text("wait, until it is released")
        page.get_by_role("link", name="Release…").click()
        page.get_by_role("button", name="Release").click()
        drain()
        expect(page.locator("[data-alya-text=state]")).to_have_text("success", timeout=20_000)

    @pytest.mark.rule("ADM-47", "ADM-51", "ADM-53")
    def test_by_keyboard_alone(self, file: Path, visit: Callable[..., Visitor]) -> None:
        """A radio button by its arrow, the forms by Enter; and Discard is a button like any."""
        visitor = visit("view_batch", "submit_batch")
        page = visitor.page
        page.goto(BATCHES)
        page.get_by_role("link", name="Upload a file").focus()
        page.keyboard.press("Enter")
        page.get_by_label("fees").focus()
        page.keyboard.press("Space")
        page.keyboard.press("ArrowDown")
        expect(page.get_by_label("Payments")).to_be_checked()
        page.get_by_label("File", exact=True).set_input_files(file)
        page.get_by_role("button", name="Upload and look at it").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Reason").focus()
        page.keyboard.type("salaries")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Discard")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_text("november.csv was discarded.")).to_be_visible()
        choose(page, file)
        page.get_by_label("Reason").focus()
        page.keyboard.press("Enter")
        expect(page.locator("[data-alya-text=state]")).to_have_text("waiting for a worker")
        assert Batch.objects.get().app == "alya"

    @pytest.mark.rule("ADM-6", "ADM-54")
    def test_without_javascript(self, file: Path, visit: Callable[..., Visitor]) -> None:
        """The same story, refreshed by hand."""
        visitor = visit(java_script_enabled=False)
        page = visitor.page
        choose(page, file)
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_text("waiting for a worker")).to_be_visible()
        drain()
        page.get_by_role("link", name="Refresh").click()
        page.get_by_role("link", name="Go to the batch").click()
        expect(page.locator("[data-alya-text=state]")).to_have_text("wait, until it is released")

    @pytest.mark.rule("ADM-50")
    def test_what_cannot_be_read_says_why(self, tmp_path: Path, visit: Callable[..., Visitor]) -> None:
        """And leads on to another file."""
        path = tmp_path / "empty.csv"
        path.write_text(HEADER)
        visitor = visit()
        choose(visitor.page, path)
        expect(visitor.page.get_by_text("The file has no usable line.")).to_be_visible()
        visitor.page.get_by_role("link", name="Upload another file").click()
        expect(visitor.page.get_by_label("File", exact=True)).to_be_visible()


class AllowedTests:
    @pytest.mark.rule("ADM-47")
    def test_nothing_is_offered_to_who_may_not_submit(self, visit: Callable[..., Visitor]) -> None:
        """No link on the list; and the page is closed."""
        visitor = visit("view_batch")
        visitor.page.goto(BATCHES)
        expect(visitor.page.get_by_role("link", name="Upload a file")).to_have_count(0)
        answer = visitor.page.goto(UPLOAD)
        assert answer is not None
        assert answer.status == 403
        visitor.complaints.clear()

    @pytest.mark.rule("ADM-47")
    def test_says_that_no_type_allows_it(self, visit: Callable[..., Visitor], settings: Any) -> None:
        """To who may submit, but nothing that is here."""
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.nothing"}
        visitor = visit("view_batch", "submit_batch")
        visitor.page.goto(UPLOAD)
        expect(visitor.page.get_by_text("There is no type of files that you may upload.")).to_be_visible()
        visitor.check_access()


class LookTests:
    @pytest.mark.rule("ADM-6")
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [WIDE, NARROW])
    def test_is_seen_by_everybody(
        self, scheme: str, width: int, tmp_path: Path, visit: Callable[..., Visitor]
    ) -> None:
        """Contrast, names and structure satisfy WCAG 2.2 AA, light and dark, wide and narrow."""
        visitor = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = visitor.page

        def look(name: str) -> None:
            visitor.take_picture(f"upload-{name}-{width}-{scheme}")
            visitor.check_access()

        def send(name: str, text: str) -> None:
            path = tmp_path / name
            path.write_text(text)
            choose(page, path)

        page.goto(BATCHES)
        look("list")
        page.goto(UPLOAD)
        look("choose")
        page.get_by_label("Payments").check()
        page.locator("form[enctype]").evaluate("form => form.noValidate = true")
        visitor.follow(page.get_by_role("button", name="Upload and look at it"))
        look("mistake")
        send(LONG, content(3_000, faulty=100))
        look("preview")
        visitor.follow(page.get_by_role("button", name="Confirm"))
        look("queued")
        Batch.objects.update(status=Status.IN_PROGRESS)
        cache.set(f"ALYA_{{{BatchFile.objects.get().pk}}}_LOADED", 100_000)
        expect(page.locator("[data-alya-text=share]")).to_have_text("30.8\xa0%", timeout=10_000)
        look("loading")
        Batch.objects.update(status=Status.QUEUED)
        drain()
        expect(page.get_by_role("link", name="Go to the batch")).to_be_visible(timeout=20_000)
        look("loaded")
        send("empty.csv", HEADER)
        look("rejected")
        receipt = process(file=content(5).encode(), file_name="first.csv", file_type="payments")
        assert receipt.accepted
        batches.abort(receipt.batch_id)
        send("second.csv", content(5))
        look("duplicate")
