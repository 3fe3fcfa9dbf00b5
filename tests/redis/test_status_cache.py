"""The rules of the cache on a real Redis, and on the other caches a project may have."""

from __future__ import annotations

import logging

import pytest
from django.core.files.base import ContentFile
from django.db import transaction

from alya_django import (
    QueryResult,
    RowFailed,
    Status,
    WrongType,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
    status_cache,
)
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo
from tests.redis.conftest import BACKENDS

# Readers cache what is committed, so these tests commit.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

PARTS = ("STATUS", "SUMMARY", "RESULT", "OUTFILES")


def keys(batch_id) -> list[str]:
    return [f"ALYA_{{{batch_id}}}_{part}" for part in PARTS]


def seconds_left(cache, batch_id) -> list[int | None]:
    """Return for how long each key of a batch stays; 0 where there is none."""
    return [cache.ttl(key) for key in keys(batch_id)]


def slot(key: bytes) -> int:
    """Return the slot of a Redis Cluster that a key falls into, as its specification computes it."""
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1)
    if begin >= 0 and end > begin + 1:
        key = key[begin + 1 : end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % 16_384


def answered(result=None, **files: bytes):
    """Return the id of a slow query that was answered with a result and files."""
    output_files = {name: ContentFile(content) for name, content in files.items()}
    register_slow_query_processor("bank", "report", lambda row: QueryResult.success(result, output_files=output_files))
    query_id = slow_queries.submit("bank", "report", {})
    assert drain() == 1
    return query_id


class TimeTests:
    @pytest.mark.rule("CACHE-1")
    def test_an_unfinished_state_stays_a_second(self, cache, client) -> None:
        """A reader's copy of what may change is gone after a second, whoever reads."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        query_id = slow_queries.submit("bank", "report", {})
        assert seconds_left(cache, batch_id) == [0, 0, 0, 0]
        batches.status(batch_id)
        slow_queries.result(query_id)
        for asked in (batch_id, query_id):
            status, summary, result, files = (client.pttl(cache.make_key(key)) for key in keys(asked))
            assert 0 < status <= 1_000
            assert 0 < summary <= 1_000
            assert (result, files) == (-2, -2)

    @pytest.mark.rule("CACHE-1", "CACHE-2")
    def test_a_final_state_stays_a_hundred_times_as_long_as_set(self, cache) -> None:
        """What the finisher writes, and what a reader finds, stay for 100 times STATUS_CACHE_SECONDS."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        for _ in range(2):
            assert all(5_990 < left <= 6_000 for left in seconds_left(cache, batch_id)[:2])
            assert seconds_left(cache, batch_id)[2:] == [0, 0]
            cache.clear()
            batches.status(batch_id)

    @pytest.mark.rule("CACHE-1", "CACHE-2")
    @pytest.mark.parametrize("who", ["finisher", "reader", "abort"])
    def test_all_keys_of_an_answer_stay_alike(self, cache, who) -> None:
        """State, summary, result and files of a slow query begin and end together."""
        if who == "abort":
            query_id = slow_queries.submit("bank", "report", {})
            slow_queries.abort(query_id)
        else:
            query_id = answered({"figure": 1}, a=b"x")
        if who == "reader":
            cache.clear()
            slow_queries.result(query_id)
        assert all(5_990 < left <= 6_000 for left in seconds_left(cache, query_id))
        assert len(cache.get_many(keys(query_id))) == 4

    @pytest.mark.rule("CACHE-6")
    def test_all_keys_of_a_batch_are_in_one_slot(self, cache, client) -> None:
        """The braces name the part of the key that decides the slot, also behind what Django puts before it."""
        assert slot(b"123456789") == 0x31C3
        query_id = answered({"figure": 1}, a=b"x")
        stored = client.keys("*")
        assert len(stored) == 4
        assert {slot(key) for key in stored} == {slot(str(query_id).encode())}
        assert {slot(cache.make_key(key).encode()) for key in keys(query_id)} == {slot(str(query_id).encode())}


class AnswerTests:
    @pytest.mark.rule("CACHE-9")
    def test_of_an_ended_query_needs_no_database(self, cache, client, django_assert_num_queries) -> None:
        """A warm poll is one call of the cache and no statement, from the first poll on."""
        query_id = answered({"figures": [1, 2.5, None, "ü"]}, report=b"x")
        calls = client.info("stats")["total_commands_processed"]
        with django_assert_num_queries(0):
            answer = slow_queries.result(query_id)
        assert client.info("stats")["total_commands_processed"] - calls == 2, "mget, and info itself"
        assert (answer.status, answer.result) == (Status.SUCCESS, {"figures": [1, 2.5, None, "ü"]})
        assert list(answer.output_files) == ["report"]
        cache.clear()
        assert slow_queries.result(query_id) == answer
        with django_assert_num_queries(0):
            assert slow_queries.result(query_id) == answer
        check_invariants()

    @pytest.mark.rule("CACHE-9", "SQD-3")
    def test_of_a_failed_query_has_its_messages(self, cache, django_assert_num_queries) -> None:
        """What failed it comes from the cache too, as it was stored."""

        def fail(row):
            raise RowFailed("no_such_account", field="account", vals=("17", "ü"))

        register_slow_query_processor("bank", "report", fail)
        query_id = slow_queries.submit("bank", "report", {})
        drain()
        with django_assert_num_queries(0):
            warm = slow_queries.result(query_id)
        cache.clear()
        assert warm == slow_queries.result(query_id)
        (message,) = warm.messages
        assert (message.errcode, message.field, message.vals) == ("no_such_account", "account", ("17", "ü"))
        assert (warm.status, warm.result) == (Status.FAILED, None)

    @pytest.mark.rule("CACHE-9", "SQA-4", "SQD-4")
    def test_of_an_aborted_query_is_empty(self, cache, django_assert_num_queries) -> None:
        """After an abort the first poll says so, and so does a cold one."""
        query_id = slow_queries.submit("bank", "report", {})
        assert slow_queries.result(query_id).try_later
        slow_queries.abort(query_id)
        with django_assert_num_queries(0):
            warm = slow_queries.result(query_id)
        cache.clear()
        assert slow_queries.result(query_id) == warm
        assert (warm.status, warm.result, warm.messages, warm.output_files) == (Status.ABORTED, None, (), {})

    @pytest.mark.rule("CACHE-9", "SQD-6")
    @pytest.mark.parametrize("result", [None, {}, [], 0, False, "", "text", 10**30, 0.1, [{"a": [None]}]], ids=repr)
    def test_is_the_same_warm_and_cold(self, cache, result) -> None:
        """Any JSON value comes back from the cache as from the database."""
        query_id = answered(result)
        warm = slow_queries.result(query_id)
        cache.clear()
        assert repr(slow_queries.result(query_id)) == repr(warm)
        assert warm.result == ({} if result is None else result)

    @pytest.mark.rule("CACHE-9")
    def test_that_is_huge_is_not_cached(self, cache) -> None:
        """A result of over 100 000 characters stays in the database; its state is cached all the same."""
        at_limit = answered("x" * (status_cache.RESULT_CHARS_MAX - len('{"result": "", "messages": []}')))
        assert len(cache.get_many(keys(at_limit))) == 4
        register_slow_query_processor("bank", "huge", lambda row: "x" * status_cache.RESULT_CHARS_MAX)
        query_id = slow_queries.submit("bank", "huge", {})
        drain()
        for _ in range(2):
            assert slow_queries.result(query_id).result == "x" * status_cache.RESULT_CHARS_MAX
            assert [key.rpartition("_")[2] for key in cache.get_many(keys(query_id))] == [
                "STATUS",
                "SUMMARY",
                "OUTFILES",
            ]

    @pytest.mark.rule("API-3")
    def test_of_a_batch_is_asked_elsewhere(self, cache) -> None:
        """What is cached of a batch does not make it a slow query, nor the reverse."""
        query_id = answered(1)
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        drain()
        for ask, wrong in ((slow_queries.result, batch_id), (batches.status, query_id), (batches.result, query_id)):
            with pytest.raises(WrongType):
                ask(wrong)


class StaleTests:
    @pytest.mark.rule("CACHE-3")
    def test_a_slow_reader_does_not_bring_back_the_past(self, cache, client) -> None:
        """What a reader saw before the end, and stores after it, changes nothing, however the two clients meet."""
        query_id = slow_queries.submit("bank", "report", {})
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        before = batches.status(batch_id)
        register_slow_query_processor("bank", "report", echo)
        drain()
        stored = {key: client.get(key) for key in client.keys("*")}
        for asked in (batch_id, query_id):
            status_cache.store(asked, before)
        assert {key: client.get(key) for key in client.keys("*")} == stored
        assert batches.status(batch_id).status is Status.SUCCESS
        assert slow_queries.result(query_id).status is Status.SUCCESS

    @pytest.mark.rule("CACHE-3", "SQD-5")
    def test_an_old_state_hides_no_answer(self, cache) -> None:
        """Where the end never reached the cache, an unfinished state in it does not put off who asks."""
        query_id = answered("found")
        unfinished = slow_queries.submit("bank", "report", {})
        slow_queries.result(unfinished)
        old = cache.get(f"ALYA_{{{unfinished}}}_STATUS")
        assert old == "queued"
        cache.set(f"ALYA_{{{query_id}}}_STATUS", old)
        assert slow_queries.result(query_id).result == "found"
        assert cache.get(f"ALYA_{{{query_id}}}_STATUS") == "success"

    @pytest.mark.rule("CACHE-4")
    def test_an_abort_drops_all_keys(self, cache) -> None:
        """From an abort to its commit nothing is cached; rolled back, the database answers as before."""
        query_id = slow_queries.submit("bank", "report", {})
        slow_queries.result(query_id)
        with transaction.atomic():
            slow_queries.abort(query_id)
            assert cache.get_many(keys(query_id)) == {}
            assert slow_queries.result(query_id).status is Status.ABORTED
            assert cache.get_many(keys(query_id)) == {}
            transaction.set_rollback(True)
        assert slow_queries.result(query_id).try_later


class CorruptTests:
    @pytest.mark.rule("CACHE-7")
    @pytest.mark.parametrize("part", PARTS)
    @pytest.mark.parametrize("garbage", [b"", b"\x80\x05garbage", b"\xff\xfe\x00", b"no pickle"], ids=repr)
    def test_bytes_that_nobody_can_read_are_a_miss(self, cache, client, part, garbage) -> None:
        """A value spoiled in the Redis itself is replaced by what the database says."""
        query_id = answered({"figure": 1}, a=b"x")
        right, stored = slow_queries.result(query_id), cache.get_many(keys(query_id))
        client.set(cache.make_key(f"ALYA_{{{query_id}}}_{part}"), garbage)
        assert slow_queries.result(query_id) == right
        if part != "SUMMARY":
            assert cache.get_many(keys(query_id)) == stored
        with slow_queries.open_output(query_id, "a") as file:
            assert file.read() == b"x"

    @pytest.mark.rule("CACHE-7")
    @pytest.mark.parametrize("part", PARTS)
    @pytest.mark.parametrize(
        "text",
        ["", "null", "[]", "{}", "17", '"x"', '{"result": 1}', '{"result": 1, "messages": [{}]}', 5, None, b"x"],
    )
    def test_texts_that_say_something_else_are_a_miss(self, cache, part, text, caplog) -> None:
        """What can be read but is no state, answer or mapping of files counts as nothing, and is told."""
        query_id = answered({"figure": 1})
        register_batch_processor("bank", "echo", echo)
        right, stored = slow_queries.result(query_id), cache.get_many(keys(query_id))
        if (part, text) == ("OUTFILES", "{}"):
            return
        cache.set(f"ALYA_{{{query_id}}}_{part}", text)
        with caplog.at_level(logging.WARNING, "alya_django"):
            assert slow_queries.result(query_id) == right
        if part != "SUMMARY":
            assert cache.get_many(keys(query_id)) == stored

    @pytest.mark.rule("CACHE-7")
    def test_a_key_of_another_kind_is_a_miss(self, cache, client) -> None:
        """Even a list where a text should be fails nobody."""
        query_id = answered(1)
        right = slow_queries.result(query_id)
        for part in PARTS:
            key = cache.make_key(f"ALYA_{{{query_id}}}_{part}")
            client.delete(key)
            client.rpush(key, "a")
        assert slow_queries.result(query_id) == right
        assert batches.recent("bank", days=1) == []


class FlushTests:
    @pytest.mark.rule("CACHE-5")
    def test_nothing_but_cost_depends_on_the_cache(self, cache, client) -> None:
        """FLUSHALL at any moment of a batch's and a query's life changes no answer."""
        register_batch_processor("bank", "echo", echo)
        register_slow_query_processor("bank", "report", echo)
        batch_id = batches.submit("bank", "echo", range(20), wait=True)
        query_id = slow_queries.submit("bank", "report", {"q": 1})
        for act in (lambda: None, lambda: batches.append(batch_id, [1]), lambda: batches.release(batch_id), drain):
            act()
            warm = [batches.status(batch_id), batches.result(batch_id), slow_queries.result(query_id)]
            warm += [batches.status(batch_id), batches.result(batch_id), slow_queries.result(query_id)]
            client.flushall()
            cold = [batches.status(batch_id), batches.result(batch_id), slow_queries.result(query_id)]
            assert warm == cold * 2
        check_invariants()

    @pytest.mark.rule("CACHE-5")
    def test_emptied_while_rows_run(self, cache, client) -> None:
        """A processor that empties the cache at every row harms nothing."""

        def flush(row):
            batches.status(row.batch_id)
            client.flushall()
            return row.input

        register_batch_processor("bank", "flush", flush)
        batch_id = batches.submit("bank", "flush", range(25))
        assert drain() == 25
        assert batches.status(batch_id).nsuccess == 25
        check_invariants()


class BackendTests:
    @pytest.mark.rule("API-5", "CACHE-5")
    @pytest.mark.parametrize("name", BACKENDS)
    def test_every_cache_gives_the_same_answers(self, use_backend, name) -> None:
        """A life of a batch and of slow queries, told alike with any cache, and with one that keeps nothing."""
        use_backend(name)
        register_batch_processor("bank", "echo", echo)
        register_slow_query_processor("bank", "report", echo)
        batch_id = batches.submit("bank", "echo", [1], wait=True)
        query_id, aborted = (slow_queries.submit("bank", "report", {"q": 1}) for _ in range(2))
        told = []

        def poll() -> None:
            for _ in range(2):
                told.append((batches.status(batch_id).status, batches.result(batch_id).nsuccess))
                told.append((slow_queries.result(query_id).status, slow_queries.result(query_id).result))
                told.append(slow_queries.result(aborted).status)

        poll()
        batches.append(batch_id, [2], wait=False)
        slow_queries.abort(aborted)
        poll()
        drain()
        poll()
        wait, queued, ended, stopped = Status.WAIT, Status.QUEUED, Status.SUCCESS, Status.ABORTED
        assert told == [
            *[(wait, 0), (queued, None), queued] * 2,
            *[(queued, 0), (queued, None), stopped] * 2,
            *[(ended, 2), (ended, {"q": 1}), stopped] * 2,
        ]
        check_invariants()

    @pytest.mark.rule("CACHE-2", "CACHE-9")
    @pytest.mark.parametrize("name", [name for name in BACKENDS if name != "dummy"])
    def test_every_cache_spares_the_database(self, use_backend, name, django_assert_num_queries) -> None:
        """Once the end is cached, asking costs no statement."""
        use_backend(name)
        query_id = answered({"figure": 1})
        with django_assert_num_queries(0):
            assert slow_queries.result(query_id).result == {"figure": 1}
