from __future__ import annotations

import pytest
from django.db import connection, transaction

from alya_django import Status, batches, register_batch_processor
from alya_django.engine.lookout import Lookout
from alya_django.engine.wakeup import Wakeup
from alya_django.engine.watch import NoWatch
from alya_django.engine.worker import Worker
from alya_django.models import BatchRow, database
from tests.concurrency.connections import elsewhere, wait_until
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

LONG_SECONDS = 60
END_LISTENERS = "SELECT PG_TERMINATE_BACKEND(pid) FROM pg_stat_activity WHERE query = 'LISTEN alya'"


@pytest.fixture
def wakeup():
    """A rest that listens already."""
    made = Wakeup(database(), listens=True)
    made.wait(LONG_SECONDS)
    yield made
    made.close()


def is_woken(wakeup: Wakeup) -> bool:
    """Tell whether news end a long rest."""
    return wakeup.wait(LONG_SECONDS)


class WakeupTests:
    @pytest.mark.rule("RUN-7")
    def test_new_work_ends_a_rest(self, wakeup) -> None:
        """Submit, release, an append that releases, and retry are heard, once they are committed."""
        batches.submit("app", "op", [1])
        assert is_woken(wakeup)
        batch_id = batches.submit("app", "op", [1], wait=True)
        other_id = batches.submit("app", "op", [1], wait=True)
        batches.append(batch_id, [2])
        assert not wakeup_has_news(wakeup)
        batches.append(batch_id, [3], wait=False)
        assert is_woken(wakeup)
        batches.release(other_id)
        assert is_woken(wakeup)
        batches.abort(other_id)
        batches.retry(other_id)
        assert is_woken(wakeup)

    @pytest.mark.rule("RUN-7")
    def test_nothing_is_told_before_the_commit(self, wakeup) -> None:
        """Inside the caller's transaction there is no news."""
        with transaction.atomic():
            batches.submit("app", "op", [1])
            assert not wakeup_has_news(wakeup)
        assert is_woken(wakeup)

    @pytest.mark.rule("RUN-7")
    def test_nothing_is_told_where_nobody_listens(self, wakeup, settings) -> None:
        """With LISTEN off a submit is one statement less."""
        settings.ALYA = {"LISTEN": False}
        batches.submit("app", "op", [1])
        assert not wakeup_has_news(wakeup)

    def test_what_is_known_is_forgotten(self, wakeup) -> None:
        """News from before a look do not end the rest after it."""
        batches.submit("app", "op", [1])
        wait_until(lambda: has_socket_news(wakeup), "the news are there")
        wakeup.forget_news()
        assert not wakeup_has_news(wakeup)

    @pytest.mark.rule("RUN-7")
    def test_news_are_not_asked_about(self, monkeypatch) -> None:
        """A worker that is woken by news claims at once."""

        def submit(self, seconds: float) -> bool:
            batches.submit("app", "op", [1])
            return True

        monkeypatch.setattr(Wakeup, "wait", submit)
        monkeypatch.setattr(Lookout, "sees_work", lambda self: pytest.fail("it asks"))
        register_batch_processor("app", "op", echo)
        watch = NoWatch()
        watch.count = lambda rows: worker.stop()
        with Worker(watch=watch) as worker:
            worker.run()
        assert BatchRow.objects.get().status == Status.SUCCESS

    def test_a_lost_listener_is_made_again(self, wakeup) -> None:
        """A connection that the server ends is no error; the worker rests on and listens later."""
        with connection.cursor() as cursor:
            cursor.execute(END_LISTENERS)
        wait_until(lambda: not wakeup.wait(1) and wakeup._listener is None, "the loss is noticed")
        wakeup._listen_at = 0
        wakeup.wait(LONG_SECONDS)
        batches.submit("app", "op", [1])
        assert is_woken(wakeup)

    def test_a_server_that_cannot_be_reached_is_asked_again_later(self, monkeypatch) -> None:
        """Meanwhile the rest is as long as it was to be."""
        store = database()
        made = Wakeup(store, listens=True)
        monkeypatch.setitem(store.connection.settings_dict, "PORT", 1)
        made.wait(0)
        made.wait(0)
        assert made._listener is None
        made.close()
        made.wake()

    def test_a_stop_ends_a_rest(self) -> None:
        """Also one that has not begun."""
        with Worker() as worker:
            worker.stop()
            worker.run()

    @pytest.mark.rule("RUN-4")
    def test_a_stop_ends_a_rest_that_has_begun(self, settings) -> None:
        """However long it is to take."""
        settings.ALYA = {"POLL_SECONDS": 600}
        register_batch_processor("app", "op", echo)
        with Worker() as worker:
            ended = elsewhere(worker.run)
            worker.stop()
            ended.result(20)


def has_socket_news(wakeup: Wakeup) -> bool:
    import select

    return bool(select.select([wakeup._listener], [], [], 0)[0])


def wakeup_has_news(wakeup: Wakeup) -> bool:
    return has_socket_news(wakeup)
