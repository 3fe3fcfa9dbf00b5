from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from alya_django import Status, batches, register_batch_processor, slow_queries
from alya_django.models import Batch, BatchErrors, BatchProgress, BatchRow
from alya_django.testing import drain
from tests.admin.pages import BATCHES, act_of, links, logged, page_of, said, states, text
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

CONFIRM = {"confirmed": "yes", "reason": "wrong file"}


@pytest.fixture
def half() -> UUID:
    """A running batch of ten rows, four of which have ended, one of them failed."""
    batch_id = batches.submit("bank", "payout", range(10))
    rows = BatchRow.objects.filter(batch=batch_id)
    rows.filter(line__lte=3).update(status=Status.SUCCESS, result={}, done_at=timezone.now(), done_by="w", attempts=1)
    rows.filter(line=4).update(status=Status.FAILED, messages=[], done_at=timezone.now(), done_by="w", attempts=1)
    BatchErrors.objects.create(batch_id=batch_id, counts={"": 1})
    Batch.objects.filter(pk=batch_id).update(status=Status.IN_PROGRESS, started_at=timezone.now())
    BatchProgress.objects.create(batch_id=batch_id, slot=0, nsuccess=3, nfailed=1)
    return batch_id


@pytest.fixture
def held(half: UUID) -> UUID:
    """The same, held."""
    Batch.objects.filter(pk=half).update(held_at=timezone.now(), hold_reason="1 row failed.")
    return half


@pytest.fixture
def waiting() -> UUID:
    return batches.submit("bank", "transfer", range(3), wait=True)


class AbortTests:
    @pytest.mark.rule("ADM-3")
    def test_says_what_it_will_do(self, half: UUID, admin_client: Client) -> None:
        """How many rows end, how many stay, that there will be no files; and does nothing yet."""
        shown = text(admin_client.get(act_of(half, "abort")))
        assert (
            "6 rows that have not ended will be aborted, for good; what workers are just doing for them is dropped. "
            "4 rows that have ended stay as they are. There will be no output files."
        ) in shown
        assert states() == {half: "inprog"}
        assert logged() == []

    @pytest.mark.rule("ADM-3")
    def test_is_done_once_it_is_confirmed(self, half: UUID, admin_client: Client) -> None:
        """The batch is aborted, the person is told and led back, and the log has counts and reason."""
        response = admin_client.post(act_of(half, "abort"), CONFIRM)
        assert (response.status_code, response["Location"]) == (302, page_of(half))
        assert said(response) == [f"bank/payout {half}: Aborted 6 rows."]
        assert states() == {half: "aborted"}
        assert logged() == ["Aborted 6 rows. (wrong file)"]
        assert LogEntry.objects.get().object_id == str(half)
        check_invariants()

    def test_needs_a_reason(self, half: UUID, admin_client: Client) -> None:
        """What cannot be undone is not done without one, nor with one too long to keep."""
        for reason, complaint in ((" ", "This field is required."), ("x" * 301, "at most 300 characters")):
            response = admin_client.post(act_of(half, "abort"), {"confirmed": "yes", "reason": reason})
            assert complaint in text(response)
        assert states() == {half: "inprog"}

    def test_a_post_without_the_word_only_asks(self, half: UUID, admin_client: Client) -> None:
        """A form that is posted by mistake changes nothing."""
        assert "will be aborted" in text(admin_client.post(act_of(half, "abort")))
        assert states() == {half: "inprog"}

    def test_of_a_slow_query(self, admin_client: Client) -> None:
        """A slow query is aborted by its own verb."""
        query = slow_queries.submit("bank", "report", {})
        response = admin_client.post(act_of(query, "abort"), CONFIRM)
        assert said(response) == [f"bank/report {query}: Aborted 1 row."]
        assert states() == {query: "aborted"}

    def test_of_what_has_ended_is_not_offered(self, ended: UUID, admin_client: Client) -> None:
        """The page says why there is nothing to do."""
        shown = text(admin_client.get(act_of(ended, "abort")))
        assert "There is nothing to do." in shown
        assert "It has ended already." in shown

    @pytest.mark.rule("ADM-3")
    def test_what_has_ended_meanwhile_is_told(
        self, half: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who confirms too late is told the state, and nothing is logged."""
        BatchRow.objects.filter(status=Status.QUEUED).update(
            status=Status.SUCCESS, result={}, done_at=timezone.now(), done_by="w"
        )
        BatchProgress.objects.update(nsuccess=9)
        response = admin_client.post(act_of(half, "abort"), CONFIRM)
        assert said(response) == [f"bank/payout {half}: nothing was done, its state is failed by now."]
        assert logged() == []

    def test_what_was_removed_meanwhile_is_told(
        self, half: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A batch that goes between the question and the act is no error."""
        find = Batch.objects.all().__class__.find

        def gone(queryset: Any, batch_id: UUID, kind: Any) -> Batch:
            return find(queryset.none(), batch_id, kind)

        monkeypatch.setattr(Batch.objects.all().__class__, "find", gone)
        response = admin_client.post(act_of(half, "abort"), CONFIRM)
        assert said(response) == [f"bank/payout {half} is there no more."]

    @pytest.mark.rule("ADM-3")
    def test_is_undone_if_it_cannot_be_logged(
        self, half: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No act is without its entry in the log."""

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("the log is full")

        monkeypatch.setattr("alya_django.admin.audit.LogEntry.objects.log_actions", fail)
        with pytest.raises(RuntimeError):
            admin_client.post(act_of(half, "abort"), CONFIRM)
        assert states() == {half: "inprog"}
        assert not BatchRow.objects.filter(status=Status.ABORTED).exists()


class ReleaseTests:
    def test_lets_a_waiting_batch_go(self, waiting: UUID, admin_client: Client) -> None:
        """A reason may be given, and need not."""
        assert "3 rows can be claimed by workers at once." in text(admin_client.get(act_of(waiting, "release")))
        response = admin_client.post(act_of(waiting, "release"), {"confirmed": "yes"})
        assert said(response) == [f"bank/transfer {waiting}: Released 3 rows."]
        assert states() == {waiting: "queued"}
        assert logged() == ["Released 3 rows."]

    @pytest.mark.rule("HLD-3")
    def test_lets_a_held_batch_go_on(self, held: UUID, admin_client: Client) -> None:
        """It says how many rows are left, and which failures are forgiven."""
        assert (
            "6 rows can be claimed by workers at once. "
            "The 1 failure so far is forgiven: only rows that fail from now on count towards its limit."
        ) in text(admin_client.get(act_of(held, "release")))
        admin_client.post(act_of(held, "release"), {"confirmed": "yes"})
        assert not Batch.objects.get().is_held

    def test_of_what_runs_is_not_offered(self, half: UUID, admin_client: Client) -> None:
        """The page says why there is nothing to do."""
        assert "It is neither waiting nor held." in text(admin_client.get(act_of(half, "release")))


class RetryTests:
    def test_makes_a_child(self, ended: UUID, admin_client: Client) -> None:
        """It says how many rows it repeats, and then in which batch."""
        assert (
            "A child batch with its 5 failed or aborted rows will be submitted, and starts at once. "
            "Lines that another retry has in hand, or has brought to success, are left out."
        ) in text(admin_client.get(act_of(ended, "retry")))
        response = admin_client.post(act_of(ended, "retry"), {"confirmed": "yes", "reason": "bank is back"})
        (child,) = batches.children(ended)
        assert said(response) == [f"bank/transfer {ended}: Retried 5 rows in batch {child}."]
        assert logged() == [f"Retried 5 rows in batch {child}. (bank is back)"]

    def test_twice_is_told(self, ended: UUID, admin_client: Client) -> None:
        """The rows that a child has in hand are not taken again."""
        batches.retry(ended)
        response = admin_client.post(act_of(ended, "retry"), {"confirmed": "yes"})
        assert said(response) == [f"bank/transfer {ended}: nothing was done, its state is failed by now."]

    @pytest.mark.rule("ADM-3")
    def test_of_a_slow_query_is_told(self, admin_client: Client) -> None:
        """Somebody may confirm what was never offered: that is refused in words, and not logged."""
        query = slow_queries.submit("bank", "report", {})
        response = admin_client.post(act_of(query, "retry"), {"confirmed": "yes"})
        assert response.status_code == 302
        assert said(response) == [f"bank/report {query}: It is a slow query: ask again instead."]
        assert logged() == []

    def test_is_offered_where_there_is_something_to_retry(
        self, half: UUID, admin_client: Client, registry: Any
    ) -> None:
        """Not of a slow query, of a batch that has not ended, or of one without a failed row."""
        register_batch_processor("shop", "order", lambda row: None)
        good = batches.submit("shop", "order", [{}])
        drain()
        query = slow_queries.submit("bank", "report", {})
        for batch_id, why in (
            (half, "It has not ended."),
            (query, "It is a slow query: ask again instead."),
            (good, "It has no row that failed or was aborted."),
        ):
            assert why in text(admin_client.get(act_of(batch_id, "retry")))


class ListTests:
    """The same acts for what is ticked in the list."""

    def choose(self, client: Client, act: str, *ids: object, **more: str) -> HttpResponse:
        return client.post(BATCHES, {"action": f"{act}_chosen", "_selected_action": [str(pk) for pk in ids], **more})

    @pytest.mark.rule("ADM-3")
    def test_asks_for_all_at_once(self, half: UUID, waiting: UUID, ended: UUID, admin_client: Client) -> None:
        """One page says what will become of each, and which are left as they are."""
        shown = text(self.choose(admin_client, "abort", half, waiting, ended))
        assert "6 rows that have not ended" in shown
        assert "3 rows that have not ended" in shown
        assert f"Left as they are bank/transfer {ended} It has ended already." in shown
        assert states() == {half: "inprog", waiting: "wait", ended: "failed"}

    @pytest.mark.rule("ADM-3")
    def test_is_done_once_it_is_confirmed(self, half: UUID, waiting: UUID, admin_client: Client) -> None:
        """Each has its own entry in the log, and the list comes back."""
        response = self.choose(admin_client, "abort", half, waiting, **CONFIRM)
        assert (response.status_code, response["Location"]) == (302, BATCHES)
        assert states() == {half: "aborted", waiting: "aborted"}
        assert sorted(logged()) == ["Aborted 3 rows. (wrong file)", "Aborted 6 rows. (wrong file)"]

    @pytest.mark.parametrize(("act", "state"), [("release", "queued"), ("retry", "wait")])
    def test_does_the_other_acts(self, act: str, state: str, waiting: UUID, admin_client: Client) -> None:
        """What is possible is done, what is not is left."""
        self.choose(admin_client, act, waiting, confirmed="yes")
        assert states() == {waiting: state}

    def test_does_only_what_was_ticked(self, half: UUID, waiting: UUID, admin_client: Client) -> None:
        """A post that means all that a filter finds does not get it; what is no id is no batch."""
        self.choose(admin_client, "abort", half, "nonsense", select_across="1", **CONFIRM)
        assert states() == {half: "aborted", waiting: "wait"}

    def test_without_anything_ticked_there_is_nothing_to_ask(self, half: UUID, admin_client: Client) -> None:
        """Django says so itself; of what was removed meanwhile, the page does."""
        response = self.choose(admin_client, "abort", half.__class__(int=0))
        assert "There is nothing to do." in text(response)

    def test_the_confirming_form_repeats_what_was_chosen(self, half: UUID, admin_client: Client) -> None:
        """It carries the action and the batches that something will be done to."""
        content = self.choose(admin_client, "abort", half).content.decode()
        assert '<input type="hidden" name="action" value="abort_chosen">' in content
        assert f'<input type="hidden" name="_selected_action" value="{half}">' in content


class AllowedTests:
    """Who may do what."""

    @pytest.fixture
    def batch_of(self, half: UUID, waiting: UUID, ended: UUID) -> dict[str, UUID]:
        """For each act a batch that it can be done to."""
        return {"abort": half, "release": waiting, "retry": ended}

    @pytest.mark.rule("ADM-1", "ADM-4")
    @pytest.mark.parametrize("act", ["abort", "release", "retry"])
    def test_one_permission_is_for_one_act(
        self, act: str, batch_of: dict[str, UUID], staff_client: Callable[..., Client]
    ) -> None:
        """By address and by the list: what is permitted works, what is not is refused and changes nothing."""
        client = staff_client("view_batch", f"{act}_batch")
        for name, batch_id in batch_of.items():
            status = client.get(act_of(batch_id, name)).status_code
            assert status == (200 if name == act else 403)
        before = states()
        for name in batch_of.keys() - {act}:
            batch_id = batch_of[name]
            assert client.post(act_of(batch_id, name), CONFIRM).status_code == 403
            client.post(BATCHES, {"action": f"{name}_chosen", "_selected_action": [str(batch_id)], **CONFIRM})
        assert states() == before
        assert client.post(act_of(batch_of[act], act), CONFIRM).status_code == 302
        assert len(logged()) == 1

    @pytest.mark.rule("ADM-4")
    def test_only_what_is_permitted_and_possible_is_offered(
        self, batch_of: dict[str, UUID], staff_client: Callable[..., Client]
    ) -> None:
        """A button that would refuse is not there, nor an action."""
        client = staff_client("view_batch", "abort_batch", "retry_batch")
        offered = {act: links(client.get(page_of(batch_id))) for act, batch_id in batch_of.items()}
        assert "Abort…" in offered["abort"]
        assert "Abort…" in offered["release"]
        assert "Release…" not in offered["release"]
        assert "Retry failed rows…" in offered["retry"]
        assert "Abort…" not in offered["retry"]
        content = client.get(BATCHES).content.decode()
        assert "abort_chosen" in content
        assert "release_chosen" not in content

    def test_an_act_needs_the_permission_to_view(self, half: UUID, staff_client: Callable[..., Client]) -> None:
        """Nobody acts on what he may not see."""
        assert staff_client("abort_batch").post(act_of(half, "abort"), CONFIRM).status_code == 403

    @pytest.mark.rule("ADM-2")
    def test_what_is_out_of_scope_is_not_there(self, admin_client: Client, settings: Any) -> None:
        """Not to be acted on by address, nor by the list."""
        shop = batches.submit("shop", "order", [{}])
        settings.ALYA = {"ADMIN_SCOPE": "tests.admin.test_permissions.only_bank"}
        assert admin_client.post(act_of(shop, "abort"), CONFIRM).status_code == 404
        admin_client.post(BATCHES, {"action": "abort_chosen", "_selected_action": [str(shop)], **CONFIRM})
        assert states() == {shop: "queued"}

    @pytest.mark.rule("ADM-4")
    def test_a_project_can_say_more(self, half: UUID, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a page of the project answers for one batch is asked in every act, with the batch."""
        asked = []

        def refuse(self: Any, request: Any, batch: Batch | None = None) -> bool:
            asked.append(batch)
            return batch is None

        monkeypatch.setattr("alya_django.admin.BatchAdmin.has_abort_permission", refuse)
        assert admin_client.post(act_of(half, "abort"), CONFIRM).status_code == 403
        response = admin_client.post(BATCHES, {"action": "abort_chosen", "_selected_action": [str(half)], **CONFIRM})
        assert response.status_code == 403
        assert [batch.pk for batch in asked if batch] == [half, half]
        assert states() == {half: "inprog"}

    def test_csrf_is_asked_for(self, half: UUID, admin_user: Any) -> None:
        """A form of another site does nothing."""
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        assert client.post(act_of(half, "abort"), CONFIRM).status_code == 403
        assert states() == {half: "inprog"}

    @pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
    def test_other_methods_are_refused(self, method: str, half: UUID, admin_client: Client) -> None:
        """There is asking and confirming, nothing else."""
        assert getattr(admin_client, method)(act_of(half, "abort")).status_code == 405
