from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from alya_django import (
    AlreadyDone,
    InvalidInput,
    Row,
    Status,
    WrongType,
    batches,
    own_queries,
    register_batch_processor,
    register_initializer,
    register_slow_query_processor,
    registry,
    slow_queries,
)
from alya_django.models import Batch, Worker
from alya_django.own_queries import RetryBatch
from alya_django.retention import prune
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


@pytest.fixture(autouse=True)
def own(registry) -> None:
    """Nothing is registered but Alya's own slow queries, and an op whose odd lines fail."""
    own_queries.register()
    register_batch_processor("bank", "transfer", fail_odd)


@pytest.fixture
def queued():
    """The id of a batch of four rows that nobody has claimed."""
    return batches.submit("bank", "transfer", range(4))


@pytest.fixture
def failed(queued):
    """The id of the same batch, ended: lines 1 and 3 have failed."""
    drain()
    return queued


def ask_to_abort(batch_id):
    return own_queries.ask_to_abort(batch_id, requested_by="asha", reason="asha has asked to abort it.")


def ask_to_retry(batch_id):
    return own_queries.ask_to_retry(batch_id, requested_by="asha")


def age(*batch_ids) -> None:
    """Let batches have been requested, and have ended if they have, nine days ago."""
    long_ago = Now() - timedelta(days=9)
    for batch in Batch.objects.filter(pk__in=batch_ids):
        Batch.objects.filter(pk=batch.pk).update(requested_at=long_ago, done_at=batch.done_at and long_ago)


class RegisterTests:
    @pytest.mark.rule("SCO-4")
    def test_they_are_registered_wherever_alya_is_installed(self) -> None:
        """A worker that is not narrowed serves them beside the project's ops."""
        assert [str(entry) for entry in registry if entry.is_own] == ["alya/abort", "alya/retry"]

    @pytest.mark.rule("LIM-1")
    def test_they_take_as_long_as_they_take(self, settings) -> None:
        """TIME_LIMIT_SECONDS is about the project's rows."""
        settings.ALYA = {"TIME_LIMIT_SECONDS": 5}
        limits = {str(entry): entry.options.seconds for entry in registry}
        assert limits == {"alya/abort": None, "alya/retry": None, "bank/transfer": 5}

    @pytest.mark.rule("REG-8")
    @pytest.mark.parametrize("register", [register_batch_processor, register_slow_query_processor])
    @pytest.mark.parametrize("app", ["alya", "Alya"])
    def test_their_app_is_refused_to_projects(self, register, app) -> None:
        """The name of the app is taken, for each kind and op."""
        with pytest.raises(InvalidInput) as caught:
            register(app, "op", echo)
        assert str(caught.value) == f"app: {app!r} is the app of Alya's own slow queries; give yours another name."
        assert caught.value.field == "app"

    @pytest.mark.rule("REG-8")
    def test_their_app_has_no_initializer(self) -> None:
        """One of the project's would have nothing to give to them."""
        with pytest.raises(InvalidInput, match="is the app of Alya's own slow queries"):
            register_initializer("alya", lambda app: None)

    def test_tells_which_a_live_worker_serves(self) -> None:
        """One that is narrowed to other apps does not."""
        ops = [["Q", "alya", "retry"], ["Q", "bank", "report"]]
        worker = Worker.objects.create(name="w", host="h", pid=1, version="1", ops=ops)
        assert own_queries.served() == {"retry"}
        worker.delete()
        assert own_queries.served() == set()


class AbortTests:
    @pytest.mark.rule("ADM-11")
    def test_a_worker_aborts_the_batch(self, queued) -> None:
        """The answer says how many rows that were."""
        query = ask_to_abort(queued)
        drain()
        assert slow_queries.result(query).result == {"rows": 4}
        assert batches.status(queued).status is Status.ABORTED
        check_invariants()

    @pytest.mark.rule("ADM-12")
    def test_nothing_is_claimed_until_then(self, queued) -> None:
        """The batch is held from the moment it is asked for, with who asked as the reason; so is one that waits."""
        assert batches.status(queued).held is False
        ask_to_abort(queued)
        assert batches.status(queued).held
        assert Batch.objects.get(pk=queued).hold_reason == "asha has asked to abort it."
        assert drain(app="bank") == 0

    @pytest.mark.rule("ADM-12")
    def test_who_asked_is_the_reason_of_a_held_batch_too(self, queued) -> None:
        """It was held before, for its failures."""
        Batch.objects.filter(pk=queued).start()
        Batch.objects.filter(pk=queued).hold("2 of 4 rows have failed, and 1 may.", nforgiven=0)
        held_at = Batch.objects.get(pk=queued).held_at
        ask_to_abort(queued)
        batch = Batch.objects.get(pk=queued)
        assert (batch.held_at, batch.hold_reason) == (held_at, "asha has asked to abort it.")

    def test_a_waiting_batch_goes_on_waiting(self, queued) -> None:
        """Nothing is claimed from it anyhow."""
        waiting = batches.submit("bank", "transfer", [1], wait=True)
        ask_to_abort(waiting)
        assert batches.status(waiting).status is Status.WAIT
        drain(app="alya")
        assert batches.status(waiting).status is Status.ABORTED

    @pytest.mark.rule("ADM-11")
    def test_asked_twice_it_happens_once(self, queued) -> None:
        """Who asks while it is not answered gets the same slow query."""
        assert ask_to_abort(queued) == ask_to_abort(queued)
        assert drain() == 1

    @pytest.mark.rule("ADM-11")
    def test_what_came_to_nothing_can_be_asked_for_again(self, queued) -> None:
        """A slow query that was aborted itself is not the answer for ever."""
        first = ask_to_abort(queued)
        slow_queries.abort(first)
        second = ask_to_abort(queued)
        assert second != first
        drain()
        assert batches.status(queued).status is Status.ABORTED

    def test_what_has_ended_is_refused(self, failed) -> None:
        """With the summary, as ``abort`` does."""
        with pytest.raises(AlreadyDone, match="has ended already") as caught:
            ask_to_abort(failed)
        assert caught.value.summary.status is Status.FAILED
        assert not Batch.objects.filter(app="alya").exists()

    def test_a_slow_query_is_refused(self) -> None:
        """It has one row, which no worker is needed to abort."""
        query = slow_queries.submit("bank", "report", {})
        with pytest.raises(WrongType):
            ask_to_abort(query)

    @pytest.mark.rule("ADM-13")
    def test_what_has_ended_meanwhile_is_a_failure_that_says_so(self, queued) -> None:
        """Rows in hand may have been the last."""
        query = ask_to_abort(queued)
        batches.release(queued)
        drain(app="bank")
        drain()
        (message,) = slow_queries.result(query).messages
        assert (message.errcode, message.vals) == ("wrong_state", ("failed",))

    @pytest.mark.rule("ADM-13")
    def test_what_is_there_no_more_is_a_failure_that_says_so(self, queued) -> None:
        """A batch may be pruned."""
        query = ask_to_abort(queued)
        Batch.objects.filter(pk=queued).update(pruned_at=Batch.objects.get(pk=queued).requested_at)
        drain()
        (message,) = slow_queries.result(query).messages
        assert (message.errcode, message.vals) == ("not_found", ())


class RetryTests:
    @pytest.mark.rule("ADM-11")
    def test_a_worker_retries_the_batch(self, failed) -> None:
        """The answer names the child, and how many rows it has."""
        query = ask_to_retry(failed)
        drain(app="alya")
        (child,) = batches.children(failed)
        assert slow_queries.result(query).result == {"rows": 2, "batch": str(child)}
        assert batches.status(child).nrows == 2

    @pytest.mark.rule("ADM-11")
    def test_a_worker_that_dies_after_it_makes_no_second_child(self, failed) -> None:
        """Who takes the slow query up again finds the child that there is."""
        query = ask_to_retry(failed)
        row = Row(
            batch_id=query,
            app="alya",
            op="retry",
            line=0,
            input={"batch": str(failed)},
            context={},
            init_block=None,
            attempt=2,
            key=f"{failed}:0",
        )
        answers = [RetryBatch().do_slow_query(row) for _ in range(2)]
        assert answers[0] == answers[1]
        assert len(batches.children(failed)) == 1

    @pytest.mark.rule("ADM-11")
    def test_asked_twice_it_happens_once(self, failed) -> None:
        """And once more when the child has ended, of what has failed there again."""
        first = ask_to_retry(failed)
        assert ask_to_retry(failed) == first
        drain()
        assert ask_to_retry(failed) != first
        drain()
        assert len(batches.children(failed)) == 2
        check_invariants()

    @pytest.mark.rule("ADM-13")
    def test_what_has_nothing_to_retry_is_a_failure_that_says_so(self, failed) -> None:
        """Another retry may have come first."""
        query = ask_to_retry(failed)
        batches.retry(failed)
        drain(app="alya")
        (message,) = slow_queries.result(query).messages
        assert (message.errcode, message.vals) == ("wrong_state", ("failed",))


class FamilyTests:
    def test_it_is_no_child(self, failed) -> None:
        """The children of a batch are those that repeat its rows."""
        ask_to_retry(failed)
        assert batches.children(failed) == []

    def test_it_goes_with_its_batch(self, failed) -> None:
        """What was asked about a batch is pruned with it."""
        ask_to_retry(failed)
        drain()
        age(*Batch.objects.values_list("pk", flat=True))
        assert prune(timedelta(days=1)).batches == 3
        assert not Batch.objects.exists()

    def test_a_batch_with_a_question_open_is_not_pruned(self, failed) -> None:
        """Nobody takes away what a worker is to do something to."""
        ask_to_retry(failed)
        age(failed)
        assert prune(timedelta(days=1)).batches == 0
