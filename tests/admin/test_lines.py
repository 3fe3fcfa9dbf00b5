from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import (
    BatchDetails,
    BatchInput,
    ErrorMessage,
    Row,
    RowFailed,
    RowResult,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.models import Batch, BatchRow
from alya_django.testing import drain
from tests.admin.pages import BATCHES, column, line_of, links, rows_of, text
from tests.processors import broken, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

QUERIES_MAX = 12
CONFIRM = {"confirmed": "yes", "reason": "asked by phone"}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def submit(*inputs: Any) -> UUID:
    return batches.submit("bank", "transfer", inputs or [{}])


def hide(value: Any, what: str, details: BatchDetails) -> str:
    return "hidden"


class LineTests:
    @pytest.mark.rule("ADM-39")
    def test_shows_all_that_is_kept(self, admin_client: Client, ended: UUID) -> None:
        """Input, messages, attempts, worker and times of a row are on the page of its line."""
        rows = BatchRow.objects.filter(batch=ended, line=3)
        rows.update(requested_at=NOON, claimed_at=NOON, done_at=NOON + timedelta(seconds=90), lost=1, retries=2)
        shown = text(admin_client.get(line_of(ended, 3)))
        noon, later = (f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}" for at in (NOON, NOON + timedelta(seconds=90)))
        for words in (
            "Line 3",
            f"bank / transfer batch {ended}",
            "✕ failed",
            "odd line 3",
            '"amount": 2',
            f"submitted {noon} attempts 1 its worker died 1 time put off by its processor 2 times",
            f"last claimed {noon} by worker {rows.get().done_by} ended {later} took 1 min 30 s",
        ):
            assert words in shown

    def test_shows_a_result_and_what_went_to_files(self, admin_client: Client, registry: Any) -> None:
        """A success shows what it returned, and each output file's name with the text that it got."""

        def process(row: Row) -> RowResult:
            return RowResult.success({"fee": 2**70}, output_lines={"b.csv": "1;2", "a/<b>.csv": "\nx"})

        register_batch_processor("bank", "transfer", process)
        batch_id = submit()
        drain()
        response = admin_client.get(line_of(batch_id))
        assert f'"fee": {2**70}' in text(response)
        assert "Output files a/<b>.csv x b.csv 1;2" in text(response)
        assert links(response)["a/<b>.csv"] == f"{BATCHES}{batch_id}/output/?name=a%2F%3Cb%3E.csv"
        # What an element of text begins with is no part of it.
        assert 'aria-label="a/&lt;b&gt;.csv">\n\nx</textarea>' in response.content.decode()

    @pytest.mark.parametrize(
        ("msgid", "errcode", "words"),
        [
            (2, "configerror", "No worker had a processor for its app and op. why"),
            (5, "configerror", "The initializer of its app went on raising errors. why"),
            (10, "processing_error", "Its processor raised an error, or returned what cannot be stored. why"),
            (11, "processing_error", "Its worker died, as many times as a row is allowed. why"),
            (12, "processing_error", "It took longer than its time limit. why"),
            (10, "insufficient_funds", "insufficient_funds - why"),
        ],
    )
    def test_says_plainly_what_a_message_means(
        self, msgid: int, errcode: str, words: str, admin_client: Client
    ) -> None:
        """Alya's own messages are explained; the numbers of a project's are its own."""
        batch_id = submit()
        message = ErrorMessage(errcode, vals=("why",), msgid=msgid)
        BatchRow.objects.update(status=Status.FAILED, messages=[message.as_json()], done_by="me")
        assert words in text(admin_client.get(line_of(batch_id)))

    def test_shows_what_a_processor_raised(self, admin_client: Client, registry: Any) -> None:
        """An exception is named."""
        register_batch_processor("bank", "transfer", broken)
        batch_id = submit()
        drain(raise_errors=False)
        assert "ZeroDivisionError: division by zero" in text(admin_client.get(line_of(batch_id)))

    def test_says_that_a_row_is_requeued(self, admin_client: Client) -> None:
        """A row that was given back says when it may be claimed again."""
        batch_id = submit()
        BatchRow.objects.update(retry_at=NOON)
        shown = text(admin_client.get(line_of(batch_id)))
        assert "↻ requeued" in shown
        assert f"due again {timezone.localtime(NOON):%Y-%m-%d %H:%M:%S}" in shown

    @pytest.mark.rule("ADM-40")
    def test_leads_to_the_failed_lines_around_it(self, admin_client: Client, ended: UUID) -> None:
        """The nearest failed lines are one click away, where there are any."""
        found = links(admin_client.get(line_of(ended, 4)))
        assert (found["Previous failed line"], found["Next failed line"]) == (line_of(ended, 3), line_of(ended, 5))
        found = links(admin_client.get(line_of(ended, 3)))
        assert (found["Previous failed line"], found["Next failed line"]) == (line_of(ended, 1), line_of(ended, 5))
        assert "Previous failed line" not in links(admin_client.get(line_of(ended, 1)))
        assert "Next failed line" not in links(admin_client.get(line_of(ended, 9)))

    def test_leads_to_its_batch_and_its_rows(self, admin_client: Client, ended: UUID) -> None:
        """The rows that follow are one click away, and so is the batch."""
        found = links(admin_client.get(line_of(ended, 4)))
        assert column(admin_client.get(found["Rows from here"]))[0] == "4"
        assert found[f"bank/transfer {ended}"] == f"{BATCHES}{ended}/change/"

    def test_links_to_the_batch_only_those_who_may_see_it(self, ended: UUID, staff_client: Any) -> None:
        """Whoever may see rows alone is not led to a page that refuses."""
        assert f"bank/transfer {ended}" not in links(staff_client("view_batchrow").get(line_of(ended)))

    def test_shows_the_row_of_a_slow_query(self, admin_client: Client, registry: Any) -> None:
        """A slow query has one row, of line 0, and no other to look for."""

        def refuse(row: Row) -> None:
            raise RowFailed("refused")

        register_slow_query_processor("bank", "report", refuse)
        query_id = slow_queries.submit("bank", "report", {"year": 2026})
        drain()
        response = admin_client.get(line_of(query_id, 0))
        assert "The row of a slow query" in text(response)
        assert '"year": 2026' in text(response)
        assert "refused" in text(response)
        assert 'name="line"' not in response.content.decode()


class MissingLineTests:
    @pytest.mark.rule("ADM-41")
    def test_says_which_lines_there_are(self, admin_client: Client) -> None:
        """A line that the batch has not is answered with the first and the last that it has."""
        batch_id = submit(BatchInput(10, {}), BatchInput(5_000, {}))
        for line in (0, 77, 5_001, 10**30):
            response = admin_client.get(line_of(batch_id, line))
            assert response.status_code == 404
            assert "This batch has no such line. Its lines are from 10 to 5,000." in response.content.decode()

    def test_says_that_there_are_none(self, admin_client: Client) -> None:
        """A batch whose rows have been removed has no lines to name."""
        batch_id = submit()
        BatchRow.objects.all().delete()
        assert "This batch has no lines." in admin_client.get(line_of(batch_id)).content.decode()

    @pytest.mark.parametrize("page", [f"{BATCHES}{uuid4()}/line/1/", f"{BATCHES}{uuid4()}/line/"])
    def test_a_batch_that_is_not_there_is_not_found(self, page: str, admin_client: Client) -> None:
        """Nor is there a line of it."""
        assert admin_client.get(page).status_code == 404

    @pytest.mark.parametrize("page", ["nonsense/line/1/", "{}/line/one/", "{}/line/-1/", "{}/line/1"])
    def test_what_is_no_address_is_no_error(self, page: str, admin_client: Client) -> None:
        """It leads back, with words, or is not found."""
        assert admin_client.get(BATCHES + page.format(submit())).status_code in (301, 302, 404)


class FindLineTests:
    def test_leads_from_a_number_to_the_page(self, admin_client: Client) -> None:
        """A form without a script finds the page of a line."""
        batch_id = submit()
        assert admin_client.get(f"{BATCHES}{batch_id}/line/", {"line": " 3269 "}).url == line_of(batch_id, 3269)

    @pytest.mark.parametrize("line", ["", "one", "-1", "½", "²", "\0", "<b>", "9" * 5000])
    def test_says_what_is_no_line(self, line: str, admin_client: Client) -> None:
        """What is no number is answered as a line that is not there."""
        response = admin_client.get(f"{BATCHES}{submit()}/line/", {"line": line}, follow=True)
        assert response.status_code == 404
        assert "This batch has no such line. Its lines are from 1 to 1." in response.content.decode()
        assert "<b>" not in response.content.decode()


class SequelTests:
    @pytest.mark.rule("ADM-42")
    def test_says_what_became_of_a_line_in_retries(self, admin_client: Client, ended: UUID) -> None:
        """Children that repeat the line, and their children, show its state there; the others are left out."""
        child = batches.retry(ended, lines=[1, 3])
        other = batches.retry(ended, lines=[5])
        drain()
        grandchild = batches.retry(child, lines=[3])
        response = admin_client.get(line_of(ended, 3))
        assert f"◔ queued in {grandchild}" in text(response)
        assert f"✕ failed in {child}" in text(response)
        assert str(other) not in text(response)
        assert links(response)[str(child)] == line_of(child, 3)
        assert links(admin_client.get(line_of(child, 3)))["line 3"] == line_of(ended, 3)

    @pytest.mark.rule("ADM-42")
    def test_follows_a_line_through_all_generations(self, admin_client: Client, ended: UUID) -> None:
        """However often it was retried; from a child it is told what came after."""
        family = [ended]
        for _ in range(4):
            family.append(batches.retry(family[-1], lines=[1]))
            drain()
        shown = text(admin_client.get(line_of(ended, 1)))
        assert [f"in {member}" in shown for member in family] == [False, True, True, True, True]
        shown = text(admin_client.get(line_of(family[2], 1)))
        assert [f"in {member}" in shown for member in family] == [False, False, False, True, True]

    def test_shows_no_children_of_apps_that_are_not_seen(
        self, admin_client: Client, ended: UUID, settings: Any
    ) -> None:
        """What the scope hides is hidden here too."""
        child = batches.retry(ended, lines=[1])
        Batch.objects.filter(pk=child).update(app="shop")
        settings.ALYA = {"ADMIN_SCOPE": f"{__name__}.only_bank"}
        assert str(child) not in text(admin_client.get(line_of(ended, 1)))


def only_bank(request: Any) -> list[str]:
    return ["bank"]


class RetryLineTests:
    @pytest.mark.rule("ADM-46")
    def test_asks_and_then_retries_the_line_alone(self, admin_client: Client, ended: UUID) -> None:
        """The answer makes a child batch of the line, is logged with its reason, and leads back."""
        address = links(admin_client.get(line_of(ended, 3)))["Retry this line…"]
        asked = admin_client.get(address)
        assert "A child batch with line 3 alone will be submitted, and starts at once." in text(asked)
        assert links(asked)["No, change nothing"] == line_of(ended, 3)
        assert batches.children(ended) == []
        response = admin_client.post(address, CONFIRM)
        assert response.url == line_of(ended, 3)
        (child,) = batches.children(ended)
        assert list(BatchRow.objects.filter(batch=child).values_list("line", flat=True)) == [3]
        entry = LogEntry.objects.get()
        assert entry.get_change_message() == f"Retried 1 row in batch {child}. (asked by phone)"
        assert "Retry this line…" not in links(admin_client.get(line_of(ended, 3)))

    @pytest.mark.rule("ADM-46")
    def test_does_not_retry_what_cannot_be(self, admin_client: Client, ended: UUID) -> None:
        """A line that has succeeded, that another retry has, or that is not there, is left, and the page says so."""
        batches.retry(ended, lines=[3])
        for line in (2, 3, 77, 10**30):
            assert "Retry this line…" not in links(admin_client.get(line_of(ended, min(line, 3))))
            asked = admin_client.get(f"{line_of(ended, line)}retry/")
            assert "It has not failed, or another retry has it in hand or has brought it to success." in text(asked)
            assert admin_client.post(f"{line_of(ended, line)}retry/", CONFIRM).status_code == 302
        assert len(batches.children(ended)) == 1

    def test_says_that_a_batch_has_not_ended(self, admin_client: Client) -> None:
        """Rows of a batch that goes on are not retried."""
        assert "It has not ended." in text(admin_client.get(f"{line_of(submit())}retry/"))

    @pytest.mark.rule("ADM-1", "ADM-46")
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_takes_the_permission_to_retry(self, method: str, ended: UUID, staff_client: Any) -> None:
        """Whoever may only look is neither offered it nor let through."""
        client = staff_client("view_batch", "view_batchrow")
        assert "Retry this line…" not in links(client.get(line_of(ended, 3)))
        assert getattr(client, method)(f"{line_of(ended, 3)}retry/", CONFIRM).status_code == 403
        assert batches.children(ended) == []


class PayloadTests:
    @pytest.mark.rule("ADM-33")
    def test_escapes_what_others_wrote(self, admin_client: Client) -> None:
        """Input is text, not markup, and keeps its digits and letters."""
        batch_id = submit({"account": 2**70, "</textarea><script>": "Zürich"})
        response = admin_client.get(line_of(batch_id))
        assert "</textarea><script>" not in response.content.decode()
        assert f'"account": {2**70}, "</textarea><script>": "Zürich"' in text(response)

    @pytest.mark.rule("ADM-39")
    def test_leads_to_the_files_only_who_may_download_them(
        self, registry: Any, folder: Path, staff_client: Any, admin_client: Client
    ) -> None:
        """And only once they are there: a batch that has not ended has none."""
        register_batch_processor("bank", "transfer", write_lines)
        batch_id = submit({"late.csv": "1;2"})
        drain()
        address = links(admin_client.get(line_of(batch_id)))["late.csv"]
        assert b"".join(admin_client.get(address).streaming_content) == b"1;2\n"
        assert "late.csv" not in links(staff_client("view_batch", "view_batchrow").get(line_of(batch_id)))
        Batch.objects.update(output_files={})
        assert "late.csv" not in links(admin_client.get(line_of(batch_id)))

    @pytest.mark.rule("ADM-33")
    def test_cuts_long_payloads(self, admin_client: Client) -> None:
        """2,048 bytes are shown, cut between letters, and the page says of how many."""
        batch_id = submit("ü" * 5000)
        shown = text(admin_client.get(line_of(batch_id)))
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

        batch_id = submit([[1]])
        monkeypatch.setattr("alya_django.admin.words.json.dumps", shallow)
        assert "[[1]]" in text(admin_client.get(line_of(batch_id)))

    @pytest.mark.rule("ADM-30", "ADM-32")
    def test_masks_what_the_project_masks(self, registry: Any, staff_client: Any, settings: Any) -> None:
        """Input and result by their keys, and what went to files."""

        def process(row: Row) -> RowResult:
            return RowResult.success(row.input, output_lines={"a.csv": "1234"})

        register_batch_processor("bank", "transfer", process)
        settings.ALYA = {"MASK_KEYS": ["pin"]}
        batch_id = submit({"pin": 1234, "name": "asha"})
        drain()
        shown = text(staff_client("view_batchrow").get(line_of(batch_id)))
        assert shown.count('"pin": "•••", "name": "asha"') == 2
        assert "a.csv •••" in shown
        assert "1234" not in shown

    @pytest.mark.rule("ADM-31")
    def test_masks_messages(self, ended: UUID, staff_client: Any, settings: Any) -> None:
        """What a project's function hides of messages is no list of them any more."""
        settings.ALYA = {"MASK_WITH": f"{__name__}.hide"}
        shown = text(staff_client("view_batchrow").get(line_of(ended, 1)))
        assert "what is said of it •••" in shown
        assert "odd" not in shown


class AccessTests:
    @pytest.mark.rule("ADM-1")
    @pytest.mark.parametrize("page", ["{}/line/1/", "{}/line/?line=1"])
    def test_takes_the_permission_to_see_rows(self, page: str, ended: UUID, staff_client: Any, client: Client) -> None:
        """Others are refused, and whoever is not known has to log in."""
        address = BATCHES + page.format(ended)
        assert staff_client("view_batch").get(address).status_code == 403
        assert client.get(address).url.startswith("/admin/login/")

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
    def test_takes_no_other_method(self, method: str, ended: UUID, admin_client: Client) -> None:
        """The page is to be read."""
        assert getattr(admin_client, method)(line_of(ended)).status_code == 405

    def test_asks_few_queries(self, ended: UUID, staff_client: Any, django_assert_max_num_queries: Any) -> None:
        """However many retries there are, and whoever looks."""
        family = [ended]
        for _ in range(4):
            family.append(batches.retry(family[-1], lines=[1]))
            drain()
        client = staff_client("view_batch", "view_batchrow", "retry_batch", "download_output")
        with django_assert_max_num_queries(QUERIES_MAX):
            assert "Retry this line" in text(client.get(line_of(family[-1], 1)))
        with django_assert_max_num_queries(QUERIES_MAX):
            assert client.get(line_of(ended, 1)).status_code == 200
        with django_assert_max_num_queries(QUERIES_MAX):
            assert client.get(line_of(ended, 100)).status_code == 404

    def test_has_no_script_and_no_style_of_its_own(self, admin_client: Client, ended: UUID) -> None:
        """A strict content security policy has nothing to refuse."""
        for address in (line_of(ended), line_of(ended, 77), rows_of(ended, status="failed")):
            content = admin_client.get(address).content.decode()
            for forbidden in ("<script>", "<style", " style=", " onclick="):
                assert forbidden not in content

    def test_changes_nothing(self, admin_client: Client, ended: UUID) -> None:
        """To look leaves all as it was."""
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(line_of(ended))
            admin_client.get(rows_of(ended))
        assert {query["sql"].split()[0] for query in captured} <= {"SELECT"}
