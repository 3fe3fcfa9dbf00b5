"""What is done to batches in a browser: by mouse, by keyboard alone, without a script, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import expect

from alya_django import Status, batches, register_batch_processor
from alya_django.admin import acts
from alya_django.models import Batch
from alya_django.testing import drain
from tests.admin.pages import BATCHES, ROWS, act_of, line_of, logged, page_of, rows_of, states
from tests.browser.conftest import Visitor
from tests.concurrency.connections import wait_until
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

PAST = {"release": "Released", "retry": "Retried", "abort": "Aborted"}


@pytest.fixture
def batch_of(registry: Any) -> dict[str, UUID]:
    """For each act, a batch that it can be done to."""
    register_batch_processor("bank", "transfer", fail_odd)
    failed = batches.submit("bank", "transfer", range(4), input_file="failed.csv")
    drain()
    waiting = batches.submit("bank", "transfer", range(3), wait=True, input_file="waiting.csv")
    queued = batches.submit("bank", "transfer", range(3), input_file="queued.csv")
    return {"release": waiting, "retry": failed, "abort": queued}


def label_of(act: str) -> str:
    return {one.name: str(one.label) for one in acts.ACTS}[act]


class KeyboardTests:
    @pytest.mark.rule("ADM-3", "ADM-6")
    @pytest.mark.parametrize("act", list(PAST))
    def test_an_act_needs_no_mouse(self, act: str, batch_of: dict[str, UUID], visit: Callable[..., Visitor]) -> None:
        """From the list to the batch, the question, the reason and the end by Tab and Enter; one sees where one is."""
        visitor = visit("view_batch", f"{act}_batch")
        page = visitor.page
        page.goto(BATCHES)
        visitor.enter(page.get_by_role("link", name=str(batch_of[act])[:8]))
        visitor.enter(page.get_by_role("link", name=f"{label_of(act)}…"))
        visitor.check_access()
        visitor.tab_to(page.get_by_label("Reason"))
        page.keyboard.type("by hand")
        visitor.enter(page.get_by_role("button", name=label_of(act)))
        expect(page.locator(".messagelist")).to_contain_text(PAST[act])
        visitor.enter(page.get_by_role("link", name="History", exact=True))
        expect(page.get_by_text("(by hand)")).to_be_visible()

    @pytest.mark.rule("ADM-6")
    def test_a_question_can_be_left(self, batch_of: dict[str, UUID], visit: Callable[..., Visitor]) -> None:
        """To change nothing is as near as the act, and leads back."""
        visitor = visit("view_batch", "abort_batch")
        page = visitor.page
        page.goto(act_of(batch_of["abort"], "abort"))
        visitor.enter(page.get_by_role("link", name="No, change nothing"))
        assert page.url.endswith(page_of(batch_of["abort"]))
        assert states()[batch_of["abort"]] == "queued"


class ListTests:
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


class PermissionTests:
    """What somebody may not do is not there, and its address is refused."""

    @pytest.mark.rule("ADM-1", "ADM-4")
    @pytest.mark.parametrize("act", list(PAST))
    def test_an_act(self, act: str, batch_of: dict[str, UUID], visit: Callable[..., Visitor]) -> None:
        """Not on the page, nor among the actions of the list, nor by its address, for whoever may do all but that."""
        others = [f"{other}_batch" for other in PAST if other != act]
        visitor = visit("view_batch", "view_batchrow", *others)
        page = visitor.page
        for other, batch_id in batch_of.items():
            page.goto(page_of(batch_id))
            expect(page.get_by_role("link", name=f"{label_of(other)}…")).to_have_count(0 if other == act else 1)
            assert visitor.status_of(act_of(batch_id, other)) == (403 if other == act else 200)
        page.goto(BATCHES)
        assert page.locator(f"option[value={act}_chosen]").count() == 0
        assert page.locator("option[value$=_chosen]").count() == len(others)

    @pytest.mark.rule("ADM-46")
    def test_a_line_is_not_retried(self, batch_of: dict[str, UUID], visit: Callable[..., Visitor]) -> None:
        """Who may only look at rows looks."""
        visitor = visit("view_batch", "view_batchrow")
        visitor.page.goto(line_of(batch_of["retry"]))
        expect(visitor.page.get_by_role("link", name="Retry this line")).to_have_count(0)
        assert visitor.status_of(f"{line_of(batch_of['retry'])}retry/") == 403

    @pytest.mark.rule("ADM-1")
    def test_rows_are_not_seen(self, batch_of: dict[str, UUID], visit: Callable[..., Visitor]) -> None:
        """Nothing leads from a batch to its rows or their payloads."""
        visitor = visit("view_batch")
        visitor.page.goto(page_of(batch_of["retry"]))
        assert visitor.page.locator(f"a[href^='{ROWS}'], a[href*='/line/'], form[action*='/line/']").count() == 0
        assert [
            visitor.status_of(address) for address in (rows_of(batch_of["retry"]), line_of(batch_of["retry"]))
        ] == [
            403,
            403,
        ]


class PlainTests:
    @pytest.mark.rule("ADM-6")
    def test_all_is_done_without_a_script(self, batch_of: dict[str, UUID], visit: Callable[..., Visitor]) -> None:
        """Links and forms: filtered, released from the list, aborted with a reason, a line found and retried."""
        visitor = visit(java_script_enabled=False)
        page = visitor.page
        page.goto(BATCHES)
        page.get_by_role("link", name="wait", exact=True).click()
        page.locator("tbody input.action-select").check()
        page.get_by_label("Action:").select_option("release_chosen")
        page.get_by_role("button", name="Go", exact=True).click()
        page.get_by_role("button", name="Release").click()
        expect(page.get_by_text("Released 3 rows.")).to_be_visible()
        page.goto(page_of(batch_of["abort"]))
        page.get_by_role("link", name="Abort…").click()
        page.get_by_label("Reason").fill("wrong file")
        page.get_by_role("button", name="Abort").click()
        expect(page.get_by_text("Aborted 3 rows.")).to_be_visible()
        page.goto(page_of(batch_of["retry"]))
        page.get_by_role("textbox", name="Line").fill("3")
        page.get_by_role("button", name="Go").click()
        page.get_by_role("link", name="Retry this line").click()
        page.get_by_role("button", name="Retry this line").click()
        expect(page.get_by_text("queued in")).to_be_visible()
        assert len(logged()) == 3


class WorkerTests:
    @pytest.mark.rule("ADM-9", "ADM-11", "ADM-12", "ADM-13")
    def test_a_batch_is_aborted_in_mid_run(self, manage: Any, visit: Callable[..., Visitor]) -> None:
        """While a real worker is at it: the page moves, the abort is asked for, and the page moves to its end."""
        batch_id = batches.submit("acceptance", "sleep", [0.05] * 1_000, input_file="november.csv")
        worker = manage("alya_worker")
        visitor = visit("view_batch", "abort_batch")
        page = visitor.page
        page.goto(page_of(batch_id))
        expect(page.locator("[data-alya-text=state]")).to_have_text("in progress", timeout=60_000)
        expect(page.locator("[data-alya-text=success]")).not_to_have_text("0", timeout=60_000)
        page.get_by_role("link", name="Abort…").click()
        expect(page.get_by_text("A worker will do it")).to_be_visible()
        page.get_by_label("Reason").fill("wrong file")
        page.get_by_role("button", name="Abort").click()
        expect(page.get_by_text("Asked a worker to abort")).to_be_visible()
        expect(page.locator("[data-alya-text=state]")).to_have_text("aborted", timeout=60_000)
        wait_until(lambda: Batch.objects.get(app="alya").status == Status.SUCCESS, "the worker has answered")
        page.get_by_role("link", name="Refresh").or_(page.get_by_role("link", name="Show")).first.click()
        naborted = Batch.objects.get(pk=batch_id).naborted
        expect(page.get_by_text(f"Aborted {naborted} rows.")).to_be_visible()
        visitor.check_access()
        worker.terminate()
        assert worker.wait(60) == 0
