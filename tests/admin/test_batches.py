from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import Status, batches, register_batch_processor, register_slow_query_processor, slow_queries
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


@pytest.fixture
def stalled(db: None) -> UUID:
    """A batch that runs, and of which no row has ended for an hour."""
    batch_id = submit()
    change(batch_id, status=Status.IN_PROGRESS, started_at=timezone.now() - timedelta(hours=2))
    BatchProgress.objects.create(batch_id=batch_id, slot=0, moved_at=timezone.now() - timedelta(hours=1))
    return batch_id


class BatchListTests:
    def test_shows_what_is_kept_of_a_batch(self, admin_client: Client) -> None:
        """A batch is one line: id and file, app and op, kind, state, progress, failures, pace, when and who."""
        batch_id = submit(input_file="a.csv", requested_by="asha")
        requested_at = timezone.localtime(Batch.objects.get().requested_at)
        assert table(admin_client.get(BATCHES)) == [
            [
                f"{str(batch_id)[:8]} a.csv",
                "bank / transfer batch",
                "◔ queued 0.0 % , 0 of 1 row",
                "0",
                f"{requested_at:%Y-%m-%d %H:%M:%S} asha",
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
        assert table(admin_client.get(BATCHES))[0][2:4] == ["▶ in progress 99.9 % , 10,000 of 10,001 rows", "12"]

    def test_shows_the_counts_of_a_finished_batch(self, admin_client: Client, ended: UUID) -> None:
        """A finished batch says what its counts say, and how long it took; its failures lead to their rows."""
        started_at = timezone.now()
        change(ended, started_at=started_at, done_at=started_at + timedelta(seconds=3725))
        response = admin_client.get(BATCHES)
        (row,) = table(response)
        assert row[2:4] == ["✕ failed 100.0 % , 10 of 10 rows 1 h 2 min", "5"]
        assert links(response)["5"] == rows_of(ended, status="failed")

    def test_aborted_rows_have_ended(self, admin_client: Client) -> None:
        """Nothing is left of an aborted batch."""
        batches.abort(submit())
        assert table(admin_client.get(BATCHES))[0][2] == "⊘ aborted 100.0 % , 1 of 1 row"

    def test_says_that_a_batch_waits(self, admin_client: Client) -> None:
        """What waits to be released says so."""
        submit(wait=True)
        assert column(admin_client.get(BATCHES), 2) == ["○ wait, until it is released 0.0 % , 0 of 1 row"]

    def test_says_that_a_batch_is_held(self, admin_client: Client) -> None:
        """What is held says so beside its state."""
        change(submit(), status=Status.IN_PROGRESS, held_at=timezone.now())
        assert column(admin_client.get(BATCHES), 2) == ["‖ in progress, held 0.0 % , 0 of 1 row"]

    def test_does_not_say_held_of_what_has_ended(self, admin_client: Client) -> None:
        """A final state stands alone."""
        batch_id = submit()
        batches.abort(batch_id)
        change(batch_id, held_at=timezone.now())
        assert column(admin_client.get(BATCHES), 2) == ["⊘ aborted 100.0 % , 1 of 1 row"]

    def test_says_that_a_batch_is_stalled(self, admin_client: Client, stalled: UUID) -> None:
        """A running batch of which nothing has ended for three heartbeats says so."""
        assert column(admin_client.get(BATCHES), 2) == ["! in progress, stalled 0.0 % , 0 of 1 row"]

    def test_leaves_out_what_was_removed_meanwhile(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A batch that is removed between two statements of a page is not on it."""
        submit()
        monkeypatch.setattr("alya_django.admin.batches.figures.of", lambda batches: {})
        assert column(admin_client.get(BATCHES)) == []

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
        assert column(admin_client.get(BATCHES, {"attention": "held"})) == [str(held)[:8]]

    def test_filters_what_is_stalled(self, admin_client: Client, stalled: UUID) -> None:
        """Running batches of which nothing ends; not what moves, has just begun, is held, or is a slow query."""
        long_ago = timezone.now() - timedelta(hours=1)
        moving, fresh, held = submit(), submit(), submit()
        query = slow_queries.submit("bank", "report", {})
        for batch_id in (moving, held, query):
            change(batch_id, status=Status.IN_PROGRESS, started_at=long_ago)
        change(fresh, status=Status.IN_PROGRESS, started_at=timezone.now())
        change(held, held_at=long_ago)
        BatchProgress.objects.create(batch_id=moving, slot=0)
        assert column(admin_client.get(BATCHES, {"attention": "stalled"})) == [str(stalled)[:8]]

    def test_filters_what_has_failures(self, admin_client: Client, ended: UUID) -> None:
        """Batches that have a failed row, also while they run."""
        good, failing = submit(), submit()
        change(failing, status=Status.IN_PROGRESS)
        BatchProgress.objects.create(batch_id=failing, slot=0, nfailed=1)
        BatchProgress.objects.create(batch_id=good, slot=0, nsuccess=1)
        found = column(admin_client.get(BATCHES, {"attention": "failures"}))
        assert sorted(found) == sorted([str(ended)[:8], str(failing)[:8]])

    def test_filters_by_what_is_registered(self, admin_client: Client, registry: Any) -> None:
        """The choices are the ops of this process, each once, and leave the batches of one."""
        register_batch_processor("bank", "transfer", write_lines)
        register_slow_query_processor("bank", "transfer", write_lines)
        register_batch_processor("shop", "order", write_lines)
        batch_id = submit()
        batches.submit("shop", "order", [{}])
        response = admin_client.get(BATCHES, {"op": "bank/transfer"})
        assert column(response) == [str(batch_id)[:8]]
        assert [words for words in links(response) if " / " in words] == ["bank / transfer", "shop / order"]

    def test_offers_only_ops_in_scope(self, admin_client: Client, registry: Any, settings: Any) -> None:
        """What a person may not see is not even named."""
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        register_batch_processor("bank", "transfer", write_lines)
        register_batch_processor("shop", "order", write_lines)
        submit()
        assert [words for words in links(admin_client.get(BATCHES)) if " / " in words] == ["bank / transfer"]

    @pytest.mark.parametrize(("period", "hours"), [("1h", 2), ("24h", 25), ("7d", 7 * 24 + 1), ("30d", 30 * 24 + 1)])
    def test_filters_by_age(self, period: str, hours: int, admin_client: Client) -> None:
        """What was requested longer ago is left out."""
        old, new = submit(), submit()
        change(old, requested_at=timezone.now() - timedelta(hours=hours))
        assert column(admin_client.get(BATCHES, {"since": period})) == [str(new)[:8]]

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

    @pytest.mark.parametrize("length", [1, 4, 8, 13, 36])
    def test_finds_a_batch_by_the_beginning_of_its_id(self, length: int, admin_client: Client) -> None:
        """As many digits as somebody has copied; dashes and capital letters make no difference."""
        batch_id = submit()
        typed = str(batch_id)[:length].upper()
        assert column(admin_client.get(BATCHES, {"q": typed})) == [str(batch_id)[:8]]
        assert column(admin_client.get(BATCHES, {"q": typed.replace("-", "")})) == [str(batch_id)[:8]]

    def test_finds_a_batch_by_the_beginning_of_its_file(self, admin_client: Client) -> None:
        """Letters that mean something to the database mean themselves."""
        batch_id = submit(input_file="100%_a.csv")
        submit(input_file="100 b.csv")
        assert column(admin_client.get(BATCHES, {"q": "100%_"})) == [f"{str(batch_id)[:8]} 100%_a.csv"]

    @pytest.mark.parametrize("search", ["bank", "8b6f1c1e-3d52-4c0a-9a55-2f6f7a1f0c11", "9" * 5000, "%", "_"])
    def test_finds_nothing_else(self, search: str, admin_client: Client) -> None:
        """A search that begins neither an id nor a file's name finds no batch."""
        submit(input_file="a.csv")
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
        for words in (str(batch_id), "a.csv", "asha", '"date": "2026-11-23"', "0.0 % 0 of 1 row", "Weight: 2.5"):
            assert words in shown

    def test_says_why_it_is_held(self, admin_client: Client) -> None:
        """The reason is above all else, and what it means."""
        batch_id = submit()
        change(batch_id, status=Status.IN_PROGRESS, held_at=timezone.now(), hold_reason="12 rows failed.")
        shown = text(admin_client.get(self.page(batch_id)))
        assert "Held: 12 rows failed. Nothing is claimed from it until it is released." in shown
        assert "‖ in progress, held" in shown

    def test_lists_the_output_files(self, admin_client: Client, registry: Any) -> None:
        """Each output file is named, with the object that holds it."""
        register_batch_processor("bank", "transfer", write_lines)
        batch_id = batches.submit("bank", "transfer", [{"late.csv": "a", "all.csv": "b"}])
        drain()
        files = Batch.objects.get().object_names()
        expected = f"Objects in the storage: all.csv: {files['all.csv']} late.csv: {files['late.csv']}"
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
        assert admin_client.post(address, {"app": "x", "post": "yes"}).status_code == 405
        assert list(Batch.objects.values()) == before
