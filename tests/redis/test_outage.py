"""A Redis that goes away, hangs and comes back while batches run and are asked for."""

from __future__ import annotations

import logging

import pytest
from django.core.cache import caches

from alya_django import (
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
    status_cache,
)
from alya_django.testing import drain
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants
from tests.processors import echo
from tests.redis.conftest import BACKENDS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

OUTAGES = {"stopped": lambda redis: redis.stop(), "frozen": lambda redis: redis.freeze()}
ON_REDIS = [name for name in BACKENDS if name not in ("dummy", "locmem", "django-redis, json")]


def keys_of(client, batch_id) -> set[str]:
    return {key.decode().rpartition("_")[2] for key in client.keys("*") if str(batch_id) in key.decode()}


class OutageTests:
    @pytest.mark.rule("API-5")
    @pytest.mark.parametrize("fail", OUTAGES.values(), ids=OUTAGES)
    @pytest.mark.parametrize("name", ON_REDIS)
    def test_every_verb_answers_the_truth(self, redis, use_backend, name, fail) -> None:
        """Gone or hanging, the Redis is missed by nobody."""
        use_backend(name)
        fail(redis)
        register_batch_processor("bank", "echo", echo)
        register_slow_query_processor("bank", "report", echo)
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        query_id, aborted = (slow_queries.submit("bank", "report", {"q": 1}) for _ in range(2))
        assert batches.status(batch_id).status is Status.WAIT
        assert batches.append(batch_id, [2]) == 2
        assert batches.status(batch_id).nrows == 2
        assert batches.release(batch_id) == 2
        assert slow_queries.abort(aborted).naborted == 1
        assert drain() == 3
        assert [row.result for row in batches.result(batch_id).rows] == [1, 2]
        assert slow_queries.result(query_id).result == {"q": 1}
        assert slow_queries.result(aborted).status is Status.ABORTED
        other = batches.submit("bank", "echo", [1])
        assert batches.abort(other).naborted == 1
        check_invariants()

    @pytest.mark.rule("API-5", "CACHE-8")
    def test_in_the_middle_of_a_run(self, redis, cache, client) -> None:
        """It goes at the fifth row and is back at the fifteenth: all rows end, and the end is cached."""

        def echo_through_an_outage(row):
            batches.status(row.batch_id)
            if row.line == 5:
                redis.stop()
            if row.line == 15:
                redis.start()
            return row.input

        register_batch_processor("bank", "echo", echo_through_an_outage)
        batch_id = batches.submit("bank", "echo", range(20))
        assert drain() == 20
        assert cache.get(status_cache.status_key(batch_id)) == "success"
        assert batches.status(batch_id).nsuccess == 20
        check_invariants()

    @pytest.mark.rule("CACHE-5", "SQD-5")
    def test_that_hides_the_end_hides_no_answer(self, redis, cache) -> None:
        """What was cached before a Redis hung is no longer believed than its second, once it is back."""
        register_batch_processor("bank", "echo", echo)
        register_slow_query_processor("bank", "report", echo)
        batch_id, query_id = batches.submit("bank", "echo", [1]), slow_queries.submit("bank", "report", {"q": 1})
        assert batches.status(batch_id).try_later
        assert slow_queries.result(query_id).try_later
        redis.freeze()
        drain()
        redis.start()
        status_cache.access.forget()
        assert batches.result(batch_id).nsuccess == 1
        assert slow_queries.result(query_id).result == {"q": 1}
        wait_until(lambda: not batches.status(batch_id).try_later, "the old state is forgotten", seconds=2)

    @pytest.mark.rule("CACHE-8")
    def test_that_hangs_is_not_waited_for_at_every_poll(self, redis, cache, monkeypatch, caplog) -> None:
        """Of many polls one waits for the time-out; the others leave the cache alone, and the log has one line."""
        batch_id = batches.submit("bank", "echo", [1])
        asked = []
        for verb in ("get_many", "add", "set_many", "delete_many"):
            real = getattr(cache, verb)
            monkeypatch.setattr(
                cache, verb, lambda *args, real=real, **kwargs: asked.append(1) or real(*args, **kwargs)
            )
        redis.freeze()
        with caplog.at_level(logging.WARNING, "alya_django"):
            for _ in range(50):
                assert batches.status(batch_id).status is Status.QUEUED
        assert len(asked) == 1
        (message,) = caplog.messages
        assert message.startswith("The cache 'default' does not answer: Timeout")

    @pytest.mark.rule("CACHE-8")
    def test_that_is_refused_is_told_seldom(self, redis, cache, caplog) -> None:
        """A hundred polls of a Redis that is gone write a line or two."""
        batch_id = batches.submit("bank", "echo", [1])
        redis.stop()
        with caplog.at_level(logging.WARNING, "alya_django"):
            for _ in range(100):
                batches.status(batch_id)
        assert 1 <= len(caplog.messages) <= 5
        assert all("ConnectionError" in message for message in caplog.messages)

    @pytest.mark.rule("CACHE-1", "CACHE-8")
    @pytest.mark.parametrize("name", ON_REDIS)
    def test_is_over_when_the_server_is_back(self, redis, use_backend, name, django_assert_num_queries) -> None:
        """A restarted, empty Redis is filled again by those who ask."""
        use_backend(name)
        register_slow_query_processor("bank", "report", echo)
        query_id = slow_queries.submit("bank", "report", {"q": 1})
        redis.stop()
        drain()
        assert slow_queries.result(query_id).result == {"q": 1}
        redis.start()
        for _ in range(2):
            assert slow_queries.result(query_id).result == {"q": 1}
        with django_assert_num_queries(0):
            assert slow_queries.result(query_id).result == {"q": 1}
        assert caches["default"].get(status_cache.status_key(query_id)) == "success"
