"""What is too much for a request: it is asked of a worker, and the pages say how that stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from alya_django import Status, batches, own_queries, register_batch_processor, slow_queries
from alya_django.admin import confirm
from alya_django.models import Batch, BatchRow, Worker
from alya_django.testing import drain
from tests.admin.pages import BATCHES, act_of, column, line_of, links, logged, page_of, rows_of, said, states, text
from tests.invariants import check_invariants
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

CONFIRM = {"confirmed": "yes", "reason": "wrong file"}
QUERIES_MAX = 12


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than three rows are too much for a request."""
    monkeypatch.setattr(confirm, "ROWS_AT_ONCE_MAX", 3)


@pytest.fixture
def own(registry: Any) -> None:
    """Alya's own slow queries, and an op whose odd lines fail."""
    own_queries.register()
    register_batch_processor("bank", "transfer", fail_odd)


@pytest.fixture
def worker(own: None) -> Worker:
    """A live worker that serves them."""
    ops = [["Q", "alya", "abort"], ["Q", "alya", "retry"], ["B", "bank", "transfer"]]
    return Worker.objects.create(pk=7, name="w", host="h", pid=1, version="1", ops=ops)


@pytest.fixture
def queued(own: None) -> UUID:
    """A batch of eight rows that nobody has claimed."""
    return batches.submit("bank", "transfer", range(8))


@pytest.fixture
def failed(queued: UUID) -> UUID:
    """The same, ended: four rows have failed."""
    drain()
    return queued


def query_about(batch_id: UUID) -> UUID:
    return Batch.objects.get(app="alya", parent=batch_id).pk


class AbortTests:
    @pytest.mark.rule("ADM-11")
    def test_the_question_says_who_will_do_it(self, queued: UUID, worker: Worker, admin_client: Client) -> None:
        """What will happen at once, and where one will see the rest."""
        assert (
            "There will be no output files. A worker will do it: once you have confirmed nothing more is claimed from "
            "the batch, and its page says what came of it."
        ) in text(admin_client.get(act_of(queued, "abort")))

    @pytest.mark.rule("ADM-11", "ADM-12")
    def test_a_worker_is_asked(self, queued: UUID, worker: Worker, admin_client: Client) -> None:
        """The batch is held at once, with who asked and why; the log says what was asked for, not that it is done."""
        response = admin_client.post(act_of(queued, "abort"), CONFIRM)
        assert said(response) == [f"bank/transfer {queued}: Asked a worker to abort 8 rows."]
        assert logged() == ["Asked a worker to abort 8 rows. (wrong file)"]
        assert Batch.objects.get(pk=queued).is_held
        shown = text(admin_client.get(page_of(queued)))
        assert (
            "Held: admin has asked to abort it (wrong file). Nothing is claimed from it until it is released." in shown
        )
        assert "◔ queued Abort for admin" in shown
        assert ": A worker will do it." in shown
        check_invariants()

    @pytest.mark.rule("ADM-13")
    def test_the_pages_say_what_came_of_it(self, queued: UUID, worker: Worker, admin_client: Client) -> None:
        """Of the batch, and its history beside what was asked for; both lead to the slow query, and it leads back."""
        admin_client.post(act_of(queued, "abort"), CONFIRM)
        drain()
        query = query_about(queued)
        for address in (page_of(queued), f"{BATCHES}{queued}/history/"):
            response = admin_client.get(address)
            assert ": Aborted 8 rows." in text(response)
            assert links(response)["Abort"] == page_of(query)
        back = admin_client.get(page_of(query))
        assert "It is about the batch" in text(back)
        assert links(back)[str(queued)] == page_of(queued)
        assert states()[queued] == "aborted"

    @pytest.mark.rule("ADM-11")
    def test_is_not_offered_again_meanwhile(self, queued: UUID, worker: Worker, admin_client: Client) -> None:
        """Neither to abort it nor to release it; who confirms both at once has asked once."""
        for _ in range(2):
            admin_client.post(act_of(queued, "abort"), CONFIRM)
        assert Batch.objects.filter(app="alya").count() == 1
        for act in ("abort", "release"):
            assert "A worker is about to abort it." in text(admin_client.get(act_of(queued, act)))

    @pytest.mark.rule("ADM-11")
    def test_a_few_rows_are_aborted_at_once(self, worker: Worker, admin_client: Client) -> None:
        """No worker is needed for them."""
        few = batches.submit("bank", "transfer", range(3))
        admin_client.post(act_of(few, "abort"), CONFIRM)
        assert states() == {few: "aborted"}

    @pytest.mark.rule("ADM-11")
    def test_where_no_worker_is_alive_the_request_does_it(
        self, queued: UUID, worker: Worker, admin_client: Client
    ) -> None:
        """Also where one was asked and has died since: what was asked for is withdrawn, and says so."""
        admin_client.post(act_of(queued, "abort"), CONFIRM)
        worker.delete()
        assert "A worker will do it" not in text(admin_client.get(act_of(queued, "abort")))
        response = admin_client.post(act_of(queued, "abort"), CONFIRM)
        assert said(response) == [f"bank/transfer {queued}: Aborted 8 rows."]
        assert states() == {queued: "aborted", query_about(queued): "aborted"}
        assert "Nothing was done: it was withdrawn, or its slow query aborted." in text(
            admin_client.get(page_of(queued))
        )

    @pytest.mark.rule("ADM-11")
    def test_what_has_ended_meanwhile_is_told(self, queued: UUID, worker: Worker, admin_client: Client) -> None:
        """Nothing is asked for then, and nothing logged."""
        BatchRow.objects.filter(batch=queued).update(
            status=Status.SUCCESS, result={}, done_at=timezone.now(), done_by="w"
        )
        ended = {"status": Status.SUCCESS, "done_at": timezone.now(), "nsuccess": 8, "nfailed": 0, "naborted": 0}
        lock = Batch.objects.all().__class__.lock_parent

        def end(queryset: Any, batch: Batch) -> Batch:
            Batch.objects.filter(pk=queued).update(**ended)
            return lock(queryset, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Batch.objects.all().__class__, "lock_parent", end)
            response = admin_client.post(act_of(queued, "abort"), CONFIRM)
        assert said(response) == [f"bank/transfer {queued}: nothing was done, its state is success by now."]
        assert logged() == []

    @pytest.mark.rule("ADM-11")
    def test_is_not_asked_for_if_it_cannot_be_logged(
        self, queued: UUID, worker: Worker, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The batch is not held either."""

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("the log is full")

        monkeypatch.setattr("alya_django.admin.audit.LogEntry.objects.log_actions", fail)
        with pytest.raises(RuntimeError):
            admin_client.post(act_of(queued, "abort"), CONFIRM)
        assert not Batch.objects.get().is_held


class RetryTests:
    @pytest.mark.rule("ADM-11", "ADM-13")
    def test_a_worker_makes_the_child(self, failed: UUID, worker: Worker, admin_client: Client) -> None:
        """Asked, logged as asked for, done, and told with a link to the child."""
        assert "A worker will do it: the page of the batch says what came of it." in text(
            admin_client.get(act_of(failed, "retry"))
        )
        response = admin_client.post(act_of(failed, "retry"), {"confirmed": "yes"})
        assert said(response) == [f"bank/transfer {failed}: Asked a worker to retry 4 rows."]
        assert logged() == ["Asked a worker to retry 4 rows."]
        assert "A worker is about to retry its failed rows." in text(admin_client.get(act_of(failed, "retry")))
        drain(app="alya")
        (child,) = batches.children(failed)
        response = admin_client.get(page_of(failed))
        assert f": Retried 4 rows in batch {child}." in text(response)
        assert links(response)["Child batch"] == page_of(child)

    @pytest.mark.rule("ADM-11")
    def test_one_line_is_retried_at_once(self, failed: UUID, worker: Worker, admin_client: Client) -> None:
        """It is one row, whatever the batch has."""
        admin_client.post(f"{line_of(failed)}retry/", {"confirmed": "yes"})
        assert len(batches.children(failed)) == 1


class OutcomeTests:
    """How what was asked for stands, in plain words."""

    @pytest.fixture
    def asked(self, queued: UUID) -> UUID:
        return own_queries.ask_to_abort(queued, requested_by="", reason="")

    def shown(self, queued: UUID, client: Client) -> str:
        return text(client.get(page_of(queued)))

    def test_that_a_worker_is_at_it(self, queued: UUID, asked: UUID, admin_client: Client) -> None:
        """While it takes its time."""
        Batch.objects.filter(pk=asked).update(status=Status.IN_PROGRESS)
        shown = self.shown(queued, admin_client)
        assert "▶ in progress Abort ," in shown
        assert ": A worker is at it." in shown

    @pytest.mark.rule("ADM-13")
    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ({"msgid": 0, "errcode": "wrong_state", "vals": ["success"]}, "Its state was success by then."),
            ({"msgid": 0, "errcode": "not_found"}, "The batch is there no more."),
            (
                {"msgid": 11, "errcode": "processing_error"},
                "Its worker died, as many times as a row is allowed.",
            ),
            ({"msgid": 10, "errcode": "of_tomorrow", "vals": ["x"]}, "of_tomorrow (x)"),
            (None, ""),
        ],
    )
    def test_why_nothing_was_done(
        self, message: Any, said: str, queued: UUID, asked: UUID, admin_client: Client
    ) -> None:
        """Never in codes where there are words for it."""
        Batch.objects.filter(pk=asked).update(
            status=Status.FAILED, done_at=timezone.now(), nsuccess=0, nfailed=1, naborted=0
        )
        BatchRow.objects.filter(batch=asked).update(
            status=Status.FAILED, messages=message and [message], done_at=timezone.now(), done_by="w"
        )
        assert f": Nothing was done. {said}".strip() in self.shown(queued, admin_client)


class ScopeTests:
    """What is asked about a batch is seen by those who see the batch, and by nobody else."""

    @pytest.fixture
    def queries(self, queued: UUID, settings: Any) -> dict[str, UUID]:
        """A slow query about a batch of the bank, and one about a batch of a shop."""
        shop = batches.submit("shop", "order", range(8))
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        ids = {"bank": queued, "shop": shop}
        return {app: own_queries.ask_to_abort(pk, requested_by="", reason="") for app, pk in ids.items()}

    @pytest.mark.rule("ADM-14")
    def test_lists_and_pages(self, queries: dict[str, UUID], admin_client: Client) -> None:
        """Neither in a list, nor by its address, nor by its rows."""
        assert str(queries["bank"])[:8] in column(admin_client.get(BATCHES))
        assert str(queries["shop"])[:8] not in column(admin_client.get(BATCHES))
        for app, status in (("bank", 200), ("shop", 404)):
            addresses = (line_of(queries[app], 0), act_of(queries[app], "abort"), rows_of(queries[app]))
            assert [admin_client.get(address).status_code for address in addresses[:2]] == [status] * 2
        assert text(admin_client.get(page_of(queries["bank"])))
        assert admin_client.get(page_of(queries["shop"])).status_code == 302

    @pytest.mark.rule("ADM-14")
    def test_what_moves(self, queries: dict[str, UUID], admin_client: Client) -> None:
        """The figures that the pages poll."""
        ids = ",".join(map(str, queries.values()))
        answer = admin_client.get(f"{BATCHES}progress/", {"ids": ids}).json()
        assert list(answer["batches"]) == [str(queries["bank"])]

    @pytest.mark.rule("ADM-14")
    def test_acts(self, queries: dict[str, UUID], admin_client: Client) -> None:
        """It can be aborted by those who see it."""
        admin_client.post(act_of(queries["bank"], "abort"), CONFIRM)
        admin_client.post(act_of(queries["shop"], "abort"), CONFIRM)
        found = states()
        assert (found[queries["bank"]], found[queries["shop"]]) == ("aborted", "queued")

    def test_what_is_about_no_batch_is_of_alya_alone(self, queries: dict[str, UUID], admin_client: Client) -> None:
        """Who sees only some apps does not see it."""
        other = slow_queries.submit("alya", "other", {})
        assert admin_client.post(act_of(other, "abort"), CONFIRM).status_code == 404


class QueriesTests:
    @pytest.mark.rule("ADM-7")
    def test_the_page_asks_few_queries(
        self, failed: UUID, worker: Worker, staff_client: Callable[..., Client]
    ) -> None:
        """Also while something is under way, for somebody who may do everything."""
        client = staff_client("view_batch", "view_batchrow", "abort_batch", "retry_batch", "release_batch")
        client.post(act_of(failed, "retry"), {"confirmed": "yes"})
        held = batches.submit("bank", "transfer", range(8))
        Batch.objects.filter(pk=held).start()
        client.post(act_of(held, "abort"), CONFIRM)
        acts_of = [act_of(failed, "retry"), act_of(held, "abort"), act_of(held, "release")]
        for address in (page_of(failed), page_of(held), *acts_of, f"{BATCHES}{failed}/history/"):
            with CaptureQueriesContext(connection) as captured:
                assert client.get(address).status_code == 200
            assert len(captured) <= QUERIES_MAX, address

    @pytest.mark.rule("ADM-7")
    @pytest.mark.parametrize("act", ["abort", "release", "retry"])
    def test_the_question_about_many_batches_asks_few_queries(
        self, act: str, worker: Worker, admin_client: Client, django_assert_max_num_queries: Any
    ) -> None:
        """A page full of large batches costs what one does: who works and how far they are is asked once for all."""
        chosen = [str(batches.submit("bank", "transfer", range(4))) for _ in range(25)]
        with django_assert_max_num_queries(12):
            shown = text(admin_client.post(BATCHES, {"action": f"{act}_chosen", "_selected_action": chosen}))
        assert shown.count("A worker will do it") == (25 if act == "abort" else 0)

    def test_the_history_of_what_is_not_there_is_none(self, admin_client: Client, admin_user: User) -> None:
        """It leads away, as every page does."""
        response = admin_client.get(f"{BATCHES}00000000-0000-0000-0000-000000000000/history/")
        assert response.status_code == 302
