from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import Status, batches, register_batch_processor, slow_queries
from alya_django.models import Batch, BatchProgress
from alya_django.testing import drain
from tests.admin.pages import BATCHES, column, links, rows_of, table, text
from tests.processors import Recording, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

QUERIES_MAX = 12


def submit(**arguments: Any) -> UUID:
    return batches.submit("bank", "transfer", [{}], **arguments)


def change(batch_id: UUID, **values: Any) -> None:
    Batch.objects.filter(pk=batch_id).update(**values)


class BatchListTests:
    def test_shows_what_is_kept_of_a_batch(self, admin_client: Client) -> None:
        """A batch is one line: id, app, op, kind, state, progress, file, who and when."""
        batch_id = submit(input_file="a.csv", requested_by="asha")
        requested_at = timezone.localtime(Batch.objects.get().requested_at)
        assert table(admin_client.get(BATCHES)) == [
            [
                str(batch_id)[:8],
                "bank",
                "transfer",
                "batch",
                "queued",
                "0.0 %, 0 of 1 row",
                "a.csv",
                "asha",
                f"{requested_at:%Y-%m-%d %H:%M:%S}",
                "-",
            ]
        ]

    def test_shows_the_latest_first(self, admin_client: Client) -> None:
        """The order is that of submission, backwards."""
        ids = [submit() for _ in range(3)]
        for age, batch_id in enumerate(ids):
            change(batch_id, requested_at=timezone.now() - timedelta(hours=age))
        assert column(admin_client.get(BATCHES)) == [str(batch_id)[:8] for batch_id in ids]

    def test_adds_up_the_progress_of_an_unfinished_batch(self, admin_client: Client) -> None:
        """What has ended is the sum of the slots, with the share rounded down."""
        batch_id = submit()
        change(batch_id, status=Status.IN_PROGRESS, nrows=10_001)
        for slot, nfailed in ((0, 0), (5, 12)):
            BatchProgress.objects.create(batch_id=batch_id, slot=slot, nsuccess=5_000 - nfailed, nfailed=nfailed)
        assert column(admin_client.get(BATCHES), 5) == ["99.9 %, 10,000 of 10,001 rows, 12 failed"]

    def test_shows_the_counts_of_a_finished_batch(self, admin_client: Client, ended: UUID) -> None:
        """A finished batch says what its counts say."""
        assert column(admin_client.get(BATCHES), 5) == ["100.0 %, 10 of 10 rows, 5 failed"]

    def test_says_how_many_rows_were_aborted(self, admin_client: Client) -> None:
        """Aborted rows have ended, and are named."""
        batches.abort(submit())
        assert column(admin_client.get(BATCHES), 5) == ["100.0 %, 1 of 1 row, 1 aborted"]

    def test_says_that_a_batch_waits(self, admin_client: Client) -> None:
        """What waits to be released says so."""
        submit(wait=True)
        assert column(admin_client.get(BATCHES), 4) == ["wait, until it is released"]

    def test_says_that_a_batch_is_held(self, admin_client: Client) -> None:
        """What is held says so beside its state."""
        change(submit(), status=Status.IN_PROGRESS, held_at=timezone.now())
        assert column(admin_client.get(BATCHES), 4) == ["in progress, held"]

    def test_does_not_say_held_of_what_has_ended(self, admin_client: Client) -> None:
        """A final state stands alone."""
        batch_id = submit()
        batches.abort(batch_id)
        change(batch_id, held_at=timezone.now())
        assert column(admin_client.get(BATCHES), 4) == ["aborted"]

    def test_filters_by_state(self, admin_client: Client, ended: UUID) -> None:
        """A chosen state leaves the batches that are in it."""
        submit()
        assert column(admin_client.get(BATCHES, {"status": "failed"})) == [str(ended)[:8]]

    @pytest.mark.rule("HLD-1")
    def test_filters_what_is_held(self, admin_client: Client) -> None:
        """The batches that wait for somebody can be seen alone; one that ended while held does not."""
        submit()
        held, over = submit(), submit()
        change(held, status=Status.IN_PROGRESS, held_at=timezone.now())
        batches.abort(over)
        change(over, held_at=timezone.now())
        assert column(admin_client.get(BATCHES, {"held": "yes"})) == [str(held)[:8]]

    def test_filters_by_kind(self, admin_client: Client) -> None:
        """Slow queries can be seen alone."""
        submit()
        query_id = slow_queries.submit("bank", "report", {})
        assert column(admin_client.get(BATCHES, {"kind": "Q"})) == [str(query_id)[:8]]

    def test_filters_compose(self, admin_client: Client) -> None:
        """The link of one filter keeps the other's choice."""
        submit()
        found = links(admin_client.get(BATCHES, {"kind": "B"}))
        assert found["success"] == "?kind=B&status=success"

    @pytest.mark.parametrize("query", [{"status": "done"}, {"status": "\0"}, {"kind": "X"}])
    def test_an_unknown_choice_finds_nothing(self, query: dict[str, str], admin_client: Client) -> None:
        """What is no choice of a filter is no error, and leaves no batch."""
        submit()
        assert "No batches to show." in text(admin_client.get(BATCHES, query))

    def test_finds_a_batch_by_its_id(self, admin_client: Client) -> None:
        """A pasted id finds its batch, spaces around it or not."""
        batch_id = [submit(), submit()][0]
        assert column(admin_client.get(BATCHES, {"q": f" {batch_id} "})) == [str(batch_id)[:8]]

    @pytest.mark.parametrize("search", ["bank", "00000000", "8b6f1c1e-3d52-4c0a-9a55-2f6f7a1f0c11", "9" * 5000])
    def test_finds_nothing_else(self, search: str, admin_client: Client) -> None:
        """A search that is no batch's id finds no batch."""
        submit()
        assert column(admin_client.get(BATCHES, {"q": search})) == []

    def test_refuses_a_search_that_is_no_text(self, admin_client: Client) -> None:
        """What no database can look for is refused with words."""
        assert "Null characters are not allowed." in text(admin_client.get(BATCHES, {"q": "\0"}))

    @pytest.mark.parametrize("lookup", ["context__amount", "progress__nfailed__gt", "app", "rows__line"])
    def test_takes_no_other_lookup(self, lookup: str, admin_client: Client) -> None:
        """The URL cannot ask for what no index answers."""
        assert admin_client.get(BATCHES, {lookup: "1"}).status_code == 400

    def test_asks_a_fixed_number_of_queries(self, admin_client: Client) -> None:
        """A full page costs what a page of one batch costs, and nothing is asked of the rows."""
        figures = []
        for count in (1, 24):
            for _ in range(count):
                BatchProgress.objects.create(batch_id=submit(), slot=0)
            with CaptureQueriesContext(
                connection,
            ) as captured:
                admin_client.get(BATCHES)
            figures.append(len(captured))
        assert figures[0] == figures[1] <= QUERIES_MAX
        assert not [query for query in captured if "alya_batchrows" in query["sql"]]
        assert len([query for query in captured if "alya_batch_progress" in query["sql"]]) == 1

    def test_asks_no_progress_of_finished_batches(self, admin_client: Client, ended: UUID) -> None:
        """What has final counts needs no slots."""
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(BATCHES)
        assert not [query for query in captured if "alya_batch_progress" in query["sql"]]

    def test_a_post_changes_nothing(self, admin_client: Client) -> None:
        """Actions that are posted by hand find nothing that takes them."""
        batch_id = submit()
        before = Batch.objects.values().get()
        admin_client.post(BATCHES, {"action": "delete_selected", "_selected_action": str(batch_id), "post": "yes"})
        assert Batch.objects.values().get() == before


class BatchPageTests:
    def page(self, batch_id: UUID) -> str:
        return f"{BATCHES}{batch_id}/change/"

    def test_shows_all_that_is_kept(self, admin_client: Client) -> None:
        """Every field of the model is on the page in some form."""
        batch_id = submit(context={"date": "2026-11-23"}, input_file="a.csv", requested_by="asha", weight=2.5)
        shown = text(admin_client.get(self.page(batch_id)))
        for words in (str(batch_id), "a.csv", "asha", '"date": "2026-11-23"', "0.0 %, 0 of 1 row", "Weight: 2.5"):
            assert words in shown

    def test_says_why_it_is_held(self, admin_client: Client) -> None:
        """The reason is beside the state."""
        batch_id = submit()
        change(batch_id, status=Status.IN_PROGRESS, held_at=timezone.now(), hold_reason="12 rows failed")
        assert "State: in progress, held Hold reason: 12 rows failed" in text(admin_client.get(self.page(batch_id)))

    def test_lists_the_output_files(self, admin_client: Client, registry: Any) -> None:
        """Each output file is named, with the object that holds it."""
        register_batch_processor("bank", "transfer", write_lines)
        batch_id = batches.submit("bank", "transfer", [{"late.csv": "a", "all.csv": "b"}])
        drain()
        files = batches.status(batch_id).output_files
        expected = f"Output files: all.csv: {files['all.csv']} late.csv: {files['late.csv']}"
        assert expected in text(admin_client.get(self.page(batch_id)))

    def test_shows_what_mark_done_raised(self, admin_client: Client, registry: Any) -> None:
        """The exception that the project's hook raised can be read."""

        class Sulking(Recording):
            def mark_done(self, details: Any) -> None:
                raise ValueError("no mail <today>")

        register_batch_processor("bank", "transfer", Sulking)
        batch_id = submit()
        drain(raise_errors=False)
        assert "no mail <today>" in text(admin_client.get(self.page(batch_id)))

    def test_links_to_its_rows(self, admin_client: Client, ended: UUID) -> None:
        """All rows are one click away, and so are those that failed."""
        found = links(admin_client.get(self.page(ended)))
        assert column(admin_client.get(found["Rows"])) == [str(line) for line in range(1, 11)]
        assert column(admin_client.get(found["Failed rows"])) == ["1", "3", "5", "7", "9"]

    def test_links_to_its_parent(self, admin_client: Client) -> None:
        """A retry leads to the batch whose rows it repeats, and to the first of all."""
        parent, child = submit(), submit()
        change(child, parent=parent, root=parent)
        assert links(admin_client.get(self.page(child)))[str(parent)] == self.page(parent)

    def test_links_to_rows_only_those_who_may_see_them(self, staff_client: Any) -> None:
        """Whoever may see batches alone is not led to a page that refuses."""
        batch_id = submit()
        assert "Rows" not in links(staff_client("view_batch").get(self.page(batch_id)))

    def test_escapes_what_others_wrote(self, admin_client: Client) -> None:
        """A context, a file name and a reason are text, not markup."""
        bad = "<script>alert(1)</script>"
        batch_id = submit(context={bad: bad}, input_file=bad)
        change(
            batch_id,
            hold_reason=bad,
            output_files={bad: {"object": bad, "size": 1, "content_type": bad, "sha256": ""}},
        )
        assert bad not in admin_client.get(self.page(batch_id)).content.decode()

    def test_has_no_script_and_no_style_of_its_own(self, admin_client: Client, ended: UUID) -> None:
        """A strict content security policy has nothing to refuse."""
        for address in (BATCHES, self.page(ended), rows_of(ended)):
            content = admin_client.get(address).content.decode()
            assert "<script>" not in content
            assert "<style" not in content
            assert " style=" not in content

    @pytest.mark.parametrize("batch_id", ["nonsense", "0", "8b6f1c1e-3d52-4c0a-9a55-2f6f7a1f0c11", "%00", "_5F"])
    def test_a_batch_that_is_not_there_is_no_error(self, batch_id: str, admin_client: Client) -> None:
        """A wrong id leads back to the admin's first page, with words."""
        assert admin_client.get(f"{BATCHES}{batch_id}/change/").status_code == 302

    @pytest.mark.parametrize("path", ["add/", "{}/change/", "{}/delete/"])
    def test_refuses_every_post(self, path: str, admin_client: Client) -> None:
        """Not even a superuser adds, changes or deletes."""
        address = BATCHES + path.format(submit())
        before = list(Batch.objects.values())
        assert admin_client.post(address, {"app": "x", "post": "yes"}).status_code == 403
        assert list(Batch.objects.values()) == before
