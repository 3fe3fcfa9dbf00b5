from __future__ import annotations

import time

import pytest
from django.db import connection, transaction

from alya_django import Status, batches, register_batch_processor
from alya_django.engine.lookout import Lookout
from alya_django.engine.wakeup import VAIN_NEWS_SECONDS, Wakeup
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

    @pytest.mark.rule("SEC-6")
    def test_a_flood_costs_no_more_looks(self, settings) -> None:
        """Whoever may connect may NOTIFY: ten thousand at once, again and again, and work is done meanwhile."""
        settings.ALYA = {"POLL_SECONDS": 600}
        register_batch_processor("app", "op", echo)
        flood, looks = Flood(), []
        with Worker() as worker:
            look = worker.round
            worker.round = lambda: (looks.append(time.monotonic()), look())[1]
            worker_ended, flood_ended = elsewhere(worker.run), elsewhere(flood.run)
            try:
                wait_until(lambda: flood.sent >= 50_000 and len(looks) >= 5, "the flood is heard")
                batch_id = batches.submit("app", "op", [1])
                wait_until(lambda: batches.status(batch_id).status == Status.SUCCESS, "the row is done")
            finally:
                flood.is_over = True
                worker.stop()
                flood_ended.result(20)
                worker_ended.result(20)
        # The first look, those around the batch, and one for each pause.
        assert len(looks) <= (looks[-1] - looks[0]) / VAIN_NEWS_SECONDS + 6

    @pytest.mark.rule("SEC-6")
    def test_a_flood_is_read_to_its_end(self, wakeup) -> None:
        """What a server cannot deliver fills its queue: one look takes in all of it."""
        Flood().pour()
        wait_until(lambda: has_socket_news(wakeup), "the news are there")
        wait_until(lambda: wakeup.forget_news() or not has_socket_news(wakeup), "all is read")

    @pytest.mark.rule("SEC-6")
    def test_work_that_was_found_has_the_next_news_believed(self, wakeup, monkeypatch) -> None:
        """Only after news that brought nothing does the worker pause, and a stop ends the pause."""
        paused = []
        rest = wakeup._rest
        monkeypatch.setattr(
            wakeup, "_rest", lambda seconds, listener: (listener or paused.append(seconds), rest(seconds, listener))[1]
        )
        for found, pauses in ((True, 0), (False, 0), (True, 1), (False, 1)):
            batches.submit("app", "op", [1])
            assert is_woken(wakeup)
            assert len(paused) == pauses
            if found:
                wakeup.found_work()

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


class Flood:
    """Notifications without end, from a connection of somebody else's."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_over = False

    def pour(self) -> None:
        """Send ten thousand, each another."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify('alya', n::text) FROM generate_series(1, 10000) n")
        self.sent += 10_000

    def run(self) -> None:
        """Send until it is over."""
        while not self.is_over:
            self.pour()


def has_socket_news(wakeup: Wakeup) -> bool:
    import select

    return bool(select.select([wakeup._listener], [], [], 0)[0])


def wakeup_has_news(wakeup: Wakeup) -> bool:
    return has_socket_news(wakeup)
